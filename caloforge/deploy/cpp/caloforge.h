/// \file caloforge.h
/// \brief Showers from a file of `caloforge export --target plain`, in C++17. Header only.
///
/// Units as in Geant4 and everywhere in caloforge: energy MeV, length mm, angle rad.
///
///     auto model = std::make_shared<const caloforge::TorchModel>("model.pt");  // torch_model.h
///     caloforge::Generator<caloforge::TorchModel> generator(model);
///     if (generator.accepts(particle)) generator.add(particle);     // while tracking
///     generator.flush([] { return G4RandGauss::shoot(); },          // at the end of the event
///                     [](const caloforge::Deposit& deposit) { ... });
///
/// **Threads and memory.** Load the model once and share it: any number of threads may run it at a
/// time, and the weights are in memory once. A `Generator` belongs to one thread; it holds the noise
/// and the showers of one batch, `batch * (n_noise + n_cells) * 4` bytes, and the runtime adds work
/// space while it runs. Measured with a transformer of 2.8 million parameters (11 MB) and batches of
/// 4: LibTorch 17 MB for the model, 53 MB for the first thread that runs it, 9 MB for each other;
/// ONNX Runtime 37, 47 and 27 MB. A run computes on the thread that calls it alone, as an event loop
/// with a thread per core wants it.
///
/// **Reproducibility.** A shower is a function of its particle and its row of noise, whatever else
/// is in the batch. Noise is drawn shower by shower in the order of `add`, so the same engine state
/// gives the same showers whatever the size of the batches.
///
/// **Errors** are `std::runtime_error` with one line that names the remedy.
///
/// This file needs the standard library only. The models are in torch_model.h (LibTorch) and
/// onnx_model.h (ONNX Runtime); FastSimulationModel.h is the template for Geant4.
#ifndef CALOFORGE_H
#define CALOFORGE_H

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <functional>
#include <locale>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace caloforge {

constexpr double kPi = 3.14159265358979323846;

/// A position in mm, or a direction.
struct Vector {
  double x = 0, y = 0, z = 0;
};

/// A particle at the entrance of the calorimeter.
struct Particle {
  double energy = 0;  ///< kinetic energy, MeV
  double theta = 0;   ///< polar angle of its direction from the beam axis +z, rad
  double phi = 0;     ///< azimuth of its direction from +x, rad
  int pdg = 11;       ///< 11 e-, -11 e+, 22 gamma
  Vector entrance;    ///< where it enters the calorimeter, global, mm
};

/// Angles (theta, phi) in rad of a direction of any length.
inline std::pair<double, double> angles(const Vector& d) {
  return {std::atan2(std::hypot(d.x, d.y), d.z), std::atan2(d.y, d.x)};
}

/// Visible energy at one place.
struct Deposit {
  Vector position;       ///< centre of the cell, global, mm
  double energy = 0;     ///< raw visible energy, MeV
  std::size_t particle;  ///< which particle's, counted in the order of `Generator::add`
};

/// The mesh frame of one particle: origin at the entrance, x' along growing theta, y' along growing
/// phi, z' along the direction.
class Frame final {
 public:
  explicit Frame(const Particle& p)
      : origin_(p.entrance),
        ct_(std::cos(p.theta)), st_(std::sin(p.theta)), cp_(std::cos(p.phi)), sp_(std::sin(p.phi)) {}

  /// Global position, mm, of a point of the frame.
  Vector to_global(const Vector& v) const {
    return {origin_.x + ct_ * cp_ * v.x - sp_ * v.y + st_ * cp_ * v.z,
            origin_.y + ct_ * sp_ * v.x + cp_ * v.y + st_ * sp_ * v.z,
            origin_.z - st_ * v.x + ct_ * v.z};
  }

  /// Point of the frame, mm, of a global position: the inverse of `to_global`.
  Vector to_local(const Vector& v) const {
    const double x = v.x - origin_.x, y = v.y - origin_.y, z = v.z - origin_.z;
    return {ct_ * cp_ * x + ct_ * sp_ * y - st_ * z, -sp_ * x + cp_ * y,
            st_ * cp_ * x + st_ * sp_ * y + ct_ * z};
  }

 private:
  Vector origin_;
  double ct_, st_, cp_, sp_;
};

/// A cylinder of n_r x n_phi x n_z cells around the direction of a particle. The flat index of a
/// cell is (r * n_phi + phi) * n_z + z; bin 0 of phi starts at -pi.
class Mesh final {
 public:
  Mesh(std::size_t n_r, std::size_t n_phi, std::size_t n_z, double cell_r, double cell_z)
      : n_r_(n_r), n_phi_(n_phi), n_z_(n_z), cell_r_(cell_r), cell_z_(cell_z) {
    for (std::size_t k = 0; k < n_phi; ++k) {
      const double phi = (double(k) + 0.5) * 2 * kPi / double(n_phi) - kPi;
      cosines_.push_back(std::cos(phi));
      sines_.push_back(std::sin(phi));
    }
  }

  std::size_t n_r() const { return n_r_; }
  std::size_t n_phi() const { return n_phi_; }
  std::size_t n_z() const { return n_z_; }
  std::size_t n_cells() const { return n_r_ * n_phi_ * n_z_; }

  /// Centre of a cell in the mesh frame, mm.
  Vector centre(std::size_t cell) const {
    const std::size_t k = cell / n_z_ % n_phi_;
    const double rho = (double(cell / n_z_ / n_phi_) + 0.5) * cell_r_;
    return {rho * cosines_[k], rho * sines_[k], (double(cell % n_z_) + 0.5) * cell_z_};
  }

  /// Flat cell of a point of the mesh frame, mm; -1 outside.
  std::int64_t cell(const Vector& local) const {
    const double r = std::floor(std::hypot(local.x, local.y) / cell_r_);
    const double z = std::floor(local.z / cell_z_);
    if (!(r < double(n_r_) && z >= 0 && z < double(n_z_))) return -1;  // nor what is no number
    // phi' = +pi is the same direction as -pi and belongs to bin 0.
    const double width = 2 * kPi / double(n_phi_);
    const auto k = std::size_t(std::floor((kPi + std::atan2(local.y, local.x)) / width)) % n_phi_;
    return std::int64_t((std::size_t(r) * n_phi_ + k) * n_z_ + std::size_t(z));
  }

 private:
  std::size_t n_r_, n_phi_, n_z_;
  double cell_r_, cell_z_;
  std::vector<double> cosines_, sines_;
};

/// What the file says of itself.
struct Description {
  Mesh mesh;
  std::size_t n_noise;              ///< standard normal numbers that a shower takes
  double energy_min, energy_max;    ///< valid range of the kinetic energy, MeV
  double theta_min, theta_max;      ///< valid range of theta, rad
  std::vector<int> pdg;             ///< particles it was trained on
  std::string detector;             ///< text of the detector file (TOML)

  /// Names of the metadata that `read` asks for.
  static const std::vector<std::string>& names() {
    static const std::vector<std::string> all = {
        "target", "detector", "n_r", "n_phi", "n_z", "cell_r_mm", "cell_z_mm", "noise",
        "energy_min_mev", "energy_max_mev", "theta_min", "theta_max", "pdg", "units"};
    return all;
  }

  /// From the metadata; `get(name)` returns "" for a name that the file does not have.
  static Description read(const std::function<std::string(const std::string&)>& get,
                          const std::string& path) {
    const auto text = [&](const std::string& name) {
      std::string value = get(name);
      if (value.empty())
        throw std::runtime_error(path + " has no metadata '" + name +
                                 "'; write the file with `caloforge export --target plain`");
      return value;
    };
    const auto wrong = [&](const std::string& name) {
      return std::runtime_error(path + " has a wrong metadata '" + name +
                                "'; write the file anew with `caloforge export --target plain`");
    };
    const auto number = [&](const std::string& name, double least = 0) {
      std::istringstream in(text(name));
      in.imbue(std::locale::classic());
      double value;
      if (!(in >> value) || value < least) throw wrong(name);
      return value;
    };
    if (text("target") != "plain" || text("units") != "MeV mm rad")
      throw std::runtime_error(path + " was exported for the target '" + get("target") +
                               "'; this header reads `caloforge export --target plain`");
    const auto count = [&](const std::string& name) { return std::size_t(number(name, 1)); };
    Description d{Mesh(count("n_r"), count("n_phi"), count("n_z"), number("cell_r_mm", 1e-9),
                       number("cell_z_mm", 1e-9)),
                  count("noise"), number("energy_min_mev"), number("energy_max_mev"),
                  number("theta_min"), number("theta_max"), {}, text("detector")};
    std::istringstream codes(text("pdg"));
    for (int code; codes >> code; codes.ignore(1, ',')) d.pdg.push_back(code);
    if (d.pdg.empty() || !codes.eof()) throw wrong("pdg");
    return d;
  }

  /// Whether the particle is within the range the model is valid in.
  bool contains(const Particle& p) const {
    return p.energy >= energy_min && p.energy <= energy_max && p.theta >= theta_min &&
           p.theta <= theta_max && std::find(pdg.begin(), pdg.end(), p.pdg) != pdg.end();
  }

  /// The valid range in words.
  std::string range() const {
    std::ostringstream out;
    out << energy_min << " to " << energy_max << " MeV, theta " << theta_min << " to " << theta_max
        << " rad, PDG codes";
    for (const int code : pdg) out << ' ' << code;
    return out.str();
  }
};

namespace detail {

inline void must_exist(const std::string& path) {
  if (!std::ifstream(path, std::ios::binary).good())
    throw std::runtime_error("cannot read " + path +
                             "; write it with `caloforge export MODEL " + path + "`");
}

/// The error of a run that failed. The reason stands on the last line of what a runtime says.
inline std::runtime_error failed(const std::string& runtime, const std::string& said) {
  const std::string reason = said.substr(0, said.find_last_not_of(" \n") + 1);
  return std::runtime_error(runtime + " cannot run the model (" +
                            reason.substr(reason.find_last_of('\n') + 1) +
                            "); write the file anew with `caloforge export --target plain`");
}

}  // namespace detail

// A model is any class with
//   const Description& description() const;
//   void run(const float* conditions, const float* noise, std::size_t n, float* showers) const;
// conditions (n, 4): kinetic energy MeV, theta rad, phi rad, PDG code; noise (n, n_noise): standard
// normal; showers (n, n_r, n_phi, n_z): raw visible energy, MeV, written by the call. `run` is const
// and may be called by several threads at a time.

/// Collects particles and makes their showers in batches. One per thread; the model is shared.
template <class Model>
class Generator final {
 public:
  /// `batch`: the most showers in one run; on one core larger ones cost memory and gain little.
  /// `threshold`: a cell has to hold more, MeV, to become a deposit; 0.0005 is the cut below which
  /// caloforge compares nothing.
  explicit Generator(std::shared_ptr<const Model> model, std::size_t batch = 4,
                     double threshold = 0)
      : model_(std::move(model)), batch_(std::max<std::size_t>(batch, 1)), threshold_(threshold) {}

  const Description& description() const { return model_->description(); }

  /// Whether the particle is within the valid range of energy, angle and type.
  bool accepts(const Particle& particle) const { return description().contains(particle); }

  /// Puts a particle on the list and returns its number on it.
  /// Throws std::runtime_error for one that `accepts` refuses.
  std::size_t add(const Particle& particle) {
    if (!accepts(particle)) {
      std::ostringstream why;
      why << "a particle with PDG code " << particle.pdg << ", " << particle.energy
          << " MeV and theta " << particle.theta << " rad is outside the range of the model ("
          << description().range() << "); leave it to Geant4";
      throw std::runtime_error(why.str());
    }
    waiting_.push_back(particle);
    return waiting_.size() - 1;
  }

  /// Number of particles on the list.
  std::size_t pending() const { return waiting_.size(); }

  /// Makes the showers of all particles on the list and empties it. `gauss()` returns a standard
  /// normal number; `sink(number, particle, shower)` gets one shower (n_r, n_phi, n_z) in MeV.
  template <class Gauss, class Sink>
  void showers(Gauss&& gauss, Sink&& sink) {
    const std::vector<Particle> particles = std::exchange(waiting_, {});
    const std::size_t cells = description().mesh.n_cells();
    for (std::size_t first = 0; first < particles.size(); first += batch_) {
      const std::size_t n = std::min(batch_, particles.size() - first);
      run(&particles[first], n, gauss);
      for (std::size_t i = 0; i < n; ++i)
        sink(first + i, particles[first + i], static_cast<const float*>(&showers_[i * cells]));
    }
  }

  /// Makes the showers of all particles on the list and empties it. `sink(deposit)` gets every
  /// deposit, particle by particle.
  template <class Gauss, class Sink>
  void flush(Gauss&& gauss, Sink&& sink) {
    showers(gauss, [&](std::size_t number, const Particle& particle, const float* shower) {
      deposits(number, particle, shower, sink);
    });
  }

  /// The same, with the deposits returned.
  template <class Gauss>
  std::vector<Deposit> flush(Gauss&& gauss) {
    std::vector<Deposit> all;
    flush(gauss, [&all](const Deposit& deposit) { all.push_back(deposit); });
    return all;
  }

  /// Hands the filled cells of one shower (n_r, n_phi, n_z), MeV, to `sink(deposit)`.
  template <class Sink>
  void deposits(std::size_t number, const Particle& particle, const float* shower,
                Sink&& sink) const {
    const Frame frame(particle);
    const Mesh& mesh = description().mesh;
    for (std::size_t cell = 0; cell < mesh.n_cells(); ++cell)
      if (shower[cell] > threshold_)
        sink(Deposit{frame.to_global(mesh.centre(cell)), shower[cell], number});
  }

 private:
  template <class Gauss>
  void run(const Particle* particles, std::size_t n, Gauss& gauss) {
    conditions_.clear();
    for (std::size_t i = 0; i < n; ++i)
      for (const double value : {particles[i].energy, particles[i].theta, particles[i].phi,
                                 double(particles[i].pdg)})
        conditions_.push_back(float(value));
    noise_.resize(n * description().n_noise);
    for (float& number : noise_) number = float(gauss());
    showers_.resize(n * description().mesh.n_cells());
    model_->run(conditions_.data(), noise_.data(), n, showers_.data());
  }

  std::shared_ptr<const Model> model_;
  std::size_t batch_;
  double threshold_;
  std::vector<Particle> waiting_;
  std::vector<float> conditions_, noise_, showers_;
};

}  // namespace caloforge

#endif  // CALOFORGE_H
