// The few declarations of Geant4 that FastSimulationModel.h uses, with its names and signatures, and
// bodies that are just enough to play an event: there are no Geant4 headers in its Python package.
#ifndef TEST_GEANT4_HH
#define TEST_GEANT4_HH

#include <cmath>
#include <iostream>
#include <random>
#include <string>
#include <vector>

using G4bool = bool;
using G4int = int;
using G4double = double;
using G4String = std::string;

constexpr G4double MeV = 1, mm = 1;

enum EInside { kOutside, kSurface, kInside };
enum G4ExceptionSeverity { FatalException };
inline void G4Exception(const char* origin, const char* code, G4ExceptionSeverity,
                        const char* description) {
  std::cerr << origin << ' ' << code << ' ' << description << '\n';
}

class G4ThreeVector {
 public:
  G4ThreeVector(G4double x = 0, G4double y = 0, G4double z = 0) : v_{x, y, z} {}
  G4double x() const { return v_[0]; }
  G4double y() const { return v_[1]; }
  G4double z() const { return v_[2]; }
  G4double perp() const { return std::hypot(v_[0], v_[1]); }

 private:
  G4double v_[3];
};

class G4ParticleDefinition {
 public:
  explicit G4ParticleDefinition(G4int pdg) : pdg_(pdg) {}
  G4int GetPDGEncoding() const { return pdg_; }

 private:
  G4int pdg_;
};

class G4Track {
 public:
  G4Track(const G4ParticleDefinition* type, G4double energy, G4ThreeVector at, G4ThreeVector along)
      : type_(type), energy_(energy), at_(at), along_(along) {}
  // As in Geant4, a copy is another track: it has no number.
  G4Track(const G4Track& other, G4bool = true)
      : type_(other.type_), energy_(other.energy_), at_(other.at_), along_(other.along_) {}
  const G4ParticleDefinition* GetParticleDefinition() const { return type_; }
  G4double GetKineticEnergy() const { return energy_; }
  const G4ThreeVector& GetPosition() const { return at_; }
  const G4ThreeVector& GetMomentumDirection() const { return along_; }
  G4int GetTrackID() const { return id_; }
  G4int GetParentID() const { return parent_; }
  void SetTrackID(const G4int id) { id_ = id; }
  void SetParentID(const G4int id) { parent_ = id; }

 private:
  const G4ParticleDefinition* type_;
  G4double energy_;
  G4ThreeVector at_, along_;
  G4int id_ = 0, parent_ = 0;
};

class G4VSolid {
 public:
  virtual ~G4VSolid() = default;
  virtual EInside Inside(const G4ThreeVector& p) const = 0;
};

class G4AffineTransform {
 public:
  explicit G4AffineTransform(G4ThreeVector shift = {}) : shift_(shift) {}
  G4ThreeVector TransformPoint(const G4ThreeVector& p) const {
    return {p.x() - shift_.x(), p.y() - shift_.y(), p.z() - shift_.z()};
  }

 private:
  G4ThreeVector shift_;
};

// An envelope that is one solid, shifted from the origin.
class G4Region {
 public:
  G4Region(G4VSolid* solid, G4ThreeVector shift) : solid(solid), transform(shift) {}
  G4VSolid* solid;
  G4AffineTransform transform;
};
using G4Envelope = G4Region;

class G4Navigator;
class G4FastTrack {
 public:
  G4FastTrack(G4Envelope* envelope, G4bool) : envelope_(envelope) {}
  void SetCurrentTrack(const G4Track& track, const G4Navigator* = nullptr) { track_ = &track; }
  const G4Track* GetPrimaryTrack() const { return track_; }
  G4VSolid* GetEnvelopeSolid() const { return envelope_->solid; }
  G4ThreeVector GetPrimaryTrackLocalPosition() const {
    return envelope_->transform.TransformPoint(track_->GetPosition());
  }
  const G4AffineTransform* GetAffineTransformation() const { return &envelope_->transform; }

 private:
  G4Envelope* envelope_;
  const G4Track* track_ = nullptr;
};

class G4FastStep {
 public:
  void KillPrimaryTrack() { killed = true; }
  void ProposePrimaryTrackPathLength(G4double) {}
  void ProposeTotalEnergyDeposited(G4double energy) { deposited = energy; }
  G4bool killed = false;
  G4double deposited = 0;
};

class G4VFastSimulationModel {
 public:
  G4VFastSimulationModel(const G4String&, G4Envelope*, G4bool = false) {}
  virtual ~G4VFastSimulationModel() = default;
  virtual G4bool IsApplicable(const G4ParticleDefinition&) = 0;
  virtual G4bool ModelTrigger(const G4FastTrack&) = 0;
  virtual void DoIt(const G4FastTrack&, G4FastStep&) = 0;
  virtual void Flush() {}
};

class G4FastHit {
 public:
  G4FastHit(const G4ThreeVector& position, G4double energy) : energy_(energy), position_(position) {}
  G4double GetEnergy() const { return energy_; }
  G4ThreeVector GetPosition() const { return position_; }

 private:
  G4double energy_;
  G4ThreeVector position_;
};

class G4FastSimHitMaker {
 public:
  struct Hit {
    G4ThreeVector position;
    G4double energy;
    G4int track;
    G4bool misplaced;  // the first hit of a maker is booked where the track is
  };
  static std::vector<Hit> hits;
  void make(const G4FastHit& hit, const G4FastTrack& track) {
    hits.push_back({hit.GetPosition(), hit.GetEnergy(), track.GetPrimaryTrack()->GetTrackID(),
                    !ready_});
    ready_ = true;
  }

 private:
  G4bool ready_ = false;
};
inline std::vector<G4FastSimHitMaker::Hit> G4FastSimHitMaker::hits;

class G4RandGauss {
 public:
  static G4double shoot() { return normal(engine); }
  static inline std::mt19937_64 engine;
  static inline std::normal_distribution<G4double> normal;
};

#endif
