/// \file FastSimulationModel.h
/// \brief Template of a Geant4 fast simulation model (Geant4 11, mass geometry).
///
/// Particles are collected while Geant4 tracks the event and their showers are made together in
/// Flush(), which Geant4 calls when its stacks are empty and before the sensitive detectors close
/// the event. Copy this file, and change what a particle has to fulfil in ModelTrigger.
///
///     // main, once: every thread shares the weights
///     auto model = std::make_shared<const caloforge::TorchModel>("model.pt");
///     // ConstructSDandField, in every thread
///     new FastSimulationModel<caloforge::TorchModel>("caloforge", region, model);
///     // physics list
///     auto fast = new G4FastSimulationPhysics;
///     for (auto name : {"e-", "e+", "gamma"}) fast->ActivateFastSimulation(name);
///     physicsList->RegisterPhysics(fast);
///
/// Hits go to the sensitive detectors of the region's volumes: those that also derive from
/// G4VFastSimSensitiveDetector, or else through an ordinary G4Step. A hit in a volume without a
/// sensitive detector is lost, so that absorbers must be sensitive, too, or the detector be read out
/// in a parallel world (G4FastSimHitMaker::SetNameOfWorldWithSD).
#ifndef CALOFORGE_FAST_SIMULATION_MODEL_H
#define CALOFORGE_FAST_SIMULATION_MODEL_H

#include <algorithm>
#include <limits>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "G4AffineTransform.hh"
#include "G4FastHit.hh"
#include "G4FastSimHitMaker.hh"
#include "G4FastStep.hh"
#include "G4FastTrack.hh"
#include "G4ParticleDefinition.hh"
#include "G4SystemOfUnits.hh"
#include "G4ThreeVector.hh"
#include "G4Track.hh"
#include "G4VFastSimulationModel.hh"
#include "G4VSolid.hh"
#include "Randomize.hh"
#include "caloforge.h"

template <class Model>
class FastSimulationModel final : public G4VFastSimulationModel {
 public:
  /// `batch` showers at most are made in one run; cells up to 0.5 keV give no hit.
  FastSimulationModel(const G4String& name, G4Envelope* envelope,
                      std::shared_ptr<const Model> model, std::size_t batch = 4)
      : G4VFastSimulationModel(name, envelope),
        fGenerator(std::move(model), batch, 0.0005) {}

  /// The particles that the file names.
  G4bool IsApplicable(const G4ParticleDefinition& type) override {
    const auto& known = fGenerator.description().pdg;
    return std::find(known.begin(), known.end(), type.GetPDGEncoding()) != known.end();
  }

  /// Within the valid range, and entering from the beam's side as in the training showers. All
  /// others are tracked by Geant4: low energies, leakage of a neighbour, particles that turn back.
  G4bool ModelTrigger(const G4FastTrack& fastTrack) override {
    return Enters(fastTrack) && fGenerator.accepts(ParticleOf(*fastTrack.GetPrimaryTrack()));
  }

  void DoIt(const G4FastTrack& fastTrack, G4FastStep& fastStep) override {
    const G4Track& track = *fastTrack.GetPrimaryTrack();
    fGenerator.add(ParticleOf(track));
    fPending.emplace_back(fastTrack);
    fastStep.KillPrimaryTrack();
    fastStep.ProposePrimaryTrackPathLength(0.);
    fastStep.ProposeTotalEnergyDeposited(track.GetKineticEnergy());
  }

  /// Makes the showers of the event. The noise comes from Geant4's engine, so an event is repeated
  /// by its seed.
  void Flush() override {
    const std::vector<Pending> pending = std::exchange(fPending, {});
    try {
      fGenerator.flush([] { return G4RandGauss::shoot(); },
                       [&](const caloforge::Deposit& d) { Place(d, pending[d.particle]); });
    } catch (const std::runtime_error& error) {
      G4Exception("FastSimulationModel::Flush", "caloforge001", FatalException, error.what());
    }
  }

 private:
  /// Geant4 deletes a killed track before Flush(): what the hit maker asks of it is kept. The copy
  /// has weight, time and numbers of the track, but no G4Step and no user information.
  struct Pending {
    explicit Pending(const G4FastTrack& from)
        : track(std::make_unique<G4Track>(*from.GetPrimaryTrack())),
          fastTrack(std::make_unique<G4FastTrack>(from)) {
      track->SetTrackID(from.GetPrimaryTrack()->GetTrackID());
      track->SetParentID(from.GetPrimaryTrack()->GetParentID());
      fastTrack->SetCurrentTrack(*track);
    }

    std::unique_ptr<G4Track> track;
    std::unique_ptr<G4FastTrack> fastTrack;
  };

  static caloforge::Particle ParticleOf(const G4Track& track) {
    const G4ThreeVector& at = track.GetPosition();
    const G4ThreeVector& along = track.GetMomentumDirection();
    const auto [theta, phi] = caloforge::angles({along.x(), along.y(), along.z()});
    return {track.GetKineticEnergy() / MeV, theta, phi,
            track.GetParticleDefinition()->GetPDGEncoding(),
            {at.x() / mm, at.y() / mm, at.z() / mm}};
  }

  /// On the surface of the envelope, and within 0.1 rad of the azimuth that leads away from the
  /// beam. Particles that leave the envelope Geant4 has already set aside.
  static G4bool Enters(const G4FastTrack& fastTrack) {
    if (fastTrack.GetEnvelopeSolid()->Inside(fastTrack.GetPrimaryTrackLocalPosition()) != kSurface)
      return false;
    const G4ThreeVector& at = fastTrack.GetPrimaryTrack()->GetPosition();
    const G4ThreeVector& along = fastTrack.GetPrimaryTrack()->GetMomentumDirection();
    const G4double cosine = (at.x() * along.x() + at.y() * along.y()) / (at.perp() * along.perp());
    return cosine > std::cos(0.1);
  }

  void Place(const caloforge::Deposit& deposit, const Pending& pending) {
    const G4FastTrack& fastTrack = *pending.fastTrack;
    const G4ThreeVector global(deposit.position.x * mm, deposit.position.y * mm,
                               deposit.position.z * mm);
    // Hits are given in the envelope's coordinates.
    const G4ThreeVector local = fastTrack.GetAffineTransformation()->TransformPoint(global);
    if (!fReady) {
      // A maker's first hit sets up its navigator and is booked at the track instead of at the hit;
      // let that be one of no energy to speak of.
      fHitMaker.make(G4FastHit(local, std::numeric_limits<G4double>::min()), fastTrack);
      fReady = true;
    }
    fHitMaker.make(G4FastHit(local, deposit.energy * MeV), fastTrack);
  }

  caloforge::Generator<Model> fGenerator;
  std::vector<Pending> fPending;
  G4FastSimHitMaker fHitMaker;
  G4bool fReady = false;
};

#endif  // CALOFORGE_FAST_SIMULATION_MODEL_H
