// Plays an event with FastSimulationModel.h: particles are taken or left to Geant4, their tracks die,
// and Flush() makes the hits that a Generator with the same noise makes.
#include "FastSimulationModel.h"

#define CHECK(condition)                                                  \
  do {                                                                    \
    if (!(condition)) {                                                   \
      std::cerr << "line " << __LINE__ << ": " << #condition << '\n';     \
      return 1;                                                           \
    }                                                                     \
  } while (false)

namespace {

// A detector of 2 x 4 x 3 cells whose showers depend on everything that a shower may depend on.
struct Toy {
  caloforge::Description text{caloforge::Mesh(2, 4, 3, 5., 4.), 2, 1000., 1e5, 0.9, 2.2,
                              {11, -11, 22}, "toy"};
  const caloforge::Description& description() const { return text; }
  void run(const float* conditions, const float* noise, std::size_t n, float* showers) const {
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t cell = 0; cell < 24; ++cell)
        showers[24 * i + cell] = cell % 5 == 0 ? 0.f
                                               : conditions[4 * i] * float(cell) * 1e-3f *
                                                     std::exp(0.1f * noise[2 * i + cell % 2]);
  }
};

// The inner surface of a barrel of 800 mm.
struct Barrel final : G4VSolid {
  EInside Inside(const G4ThreeVector& p) const override {
    if (std::abs(p.perp() - 800) < 1e-9) return kSurface;
    return p.perp() > 800 ? kInside : kOutside;
  }
};

}  // namespace

int main() {
  Barrel barrel;
  G4Region region(&barrel, G4ThreeVector(0, 0, 100));
  const auto toy = std::make_shared<const Toy>();
  FastSimulationModel<Toy> model("caloforge", &region, toy, 2);
  const G4ParticleDefinition electron(11), photon(22), pion(211);
  CHECK(model.IsApplicable(electron) && model.IsApplicable(photon) && !model.IsApplicable(pion));

  G4FastTrack fastTrack(&region, false);
  const auto triggers = [&](G4double energy, G4ThreeVector at, G4ThreeVector along) {
    const G4Track track(&electron, energy, at, along);
    fastTrack.SetCurrentTrack(track);
    return model.ModelTrigger(fastTrack);
  };
  const G4double s = std::sin(1.2), c = std::cos(1.2);
  const G4ThreeVector entrance(800, 0, 800 * c / s), out(s, 0, c);
  CHECK(triggers(5e4, entrance, out));
  CHECK(!triggers(999, entrance, out));                                 // below the valid range
  CHECK(!triggers(5e4, entrance, G4ThreeVector(0.1, 0, std::sqrt(0.99))));  // too close to the beam
  CHECK(!triggers(5e4, G4ThreeVector(900, 0, 0), out));                 // inside already
  CHECK(!triggers(5e4, entrance, G4ThreeVector(-s, 0, c)));             // from outside
  CHECK(!triggers(5e4, entrance, G4ThreeVector(0, s, c)));              // along the surface

  // Three particles; every track is gone before Flush(), as in Geant4.
  caloforge::Generator<Toy> generator(toy);
  for (G4int i = 0; i < 3; ++i) {
    const G4double phi = 0.5 * i, x = std::cos(phi), y = std::sin(phi), energy = 2e4 + 1e4 * i;
    const G4ThreeVector at(800 * x, 800 * y, 800 * c / s), along(s * x, s * y, c);
    auto track = std::make_unique<G4Track>(i == 1 ? &photon : &electron, energy, at, along);
    track->SetTrackID(7 + i);
    fastTrack.SetCurrentTrack(*track);
    CHECK(model.ModelTrigger(fastTrack));
    G4FastStep step;
    model.DoIt(fastTrack, step);
    CHECK(step.killed && step.deposited == energy);
    generator.add({energy, 1.2, phi, i == 1 ? 22 : 11, {at.x(), at.y(), at.z()}});
  }
  auto& hits = G4FastSimHitMaker::hits;
  CHECK(hits.empty());

  G4RandGauss::engine.seed(3);
  G4RandGauss::normal.reset();
  model.Flush();
  G4RandGauss::engine.seed(3);
  G4RandGauss::normal.reset();
  const auto expected = generator.flush([] { return G4RandGauss::shoot(); });
  CHECK(hits.size() == expected.size() + 1);
  CHECK(hits[0].misplaced && hits[0].energy < 1e-300);  // the maker's first hit costs nothing
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const auto& hit = hits[i + 1];
    const auto& at = expected[i].position;
    CHECK(!hit.misplaced && hit.energy == expected[i].energy);
    CHECK(hit.track == 7 + G4int(expected[i].particle));
    CHECK(std::abs(hit.position.x() - at.x) + std::abs(hit.position.y() - at.y) < 1e-9);
    CHECK(std::abs(hit.position.z() - (at.z - 100)) < 1e-9);  // in the envelope's coordinates
  }

  const std::size_t before = hits.size();
  model.Flush();  // nothing is pending: nothing happens
  CHECK(hits.size() == before);
}
