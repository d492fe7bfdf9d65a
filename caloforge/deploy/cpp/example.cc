/// \file example.cc
/// \brief Showers from an exported file, on the command line.
///
///     caloforge_example MODEL [--energy-gev 50] [--theta 1.57] [--phi 0.3] [--pdg 11] [-n 10]
///                             [--seed 1] [--radius 0] [--batch 4] [--threads 1]
///                             [--particles FILE] [--noise FILE] [--out FILE] [--deposits FILE]
///
/// Files are raw numbers of this machine: particles float32 (n, 4) of MeV, rad, rad and PDG code;
/// noise float32 (n, n_noise); out float32 (n, n_r, n_phi, n_z) in MeV; deposits float64 (m, 5) of
/// particle, x, y, z in mm and MeV. A particle from the origin enters at `--radius` mm from the beam
/// axis. Each thread has a generator and an engine of its own; the model is shared.
#include <chrono>
#include <fstream>
#include <future>
#include <iostream>
#include <iterator>
#include <map>
#include <random>
#include <string>

#include "caloforge.h"
#ifdef CALOFORGE_WITH_TORCH
#include "torch_model.h"
#endif
#ifdef CALOFORGE_WITH_ONNX
#include "onnx_model.h"
#endif

namespace {

using Options = std::map<std::string, std::string>;

Options parse(int argc, char** argv) {
  Options options = {{"--energy-gev", "50"}, {"--theta", "1.57"}, {"--phi", "0.3"},
                     {"--pdg", "11"},        {"-n", "10"},        {"--seed", "1"},
                     {"--radius", "0"},      {"--batch", "4"},   {"--threads", "1"},
                     {"--particles", ""},    {"--noise", ""},     {"--out", ""},
                     {"--deposits", ""},     {"MODEL", ""}};
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name[0] != '-' && options["MODEL"].empty())
      options["MODEL"] = name;
    else if (options.count(name) == 1 && name != "MODEL" && i + 1 < argc)
      options[name] = argv[++i];
    else
      throw std::runtime_error("unknown or incomplete option " + name +
                               "; example.cc lists them at its top");
  }
  if (options["MODEL"].empty())
    throw std::runtime_error("no model given; caloforge_example MODEL.pt [options]");
  return options;
}

double number(const Options& options, const std::string& name) {
  const std::string& text = options.at(name);
  std::size_t used = 0;
  double value = 0;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
  }
  if (used == 0 || used != text.size())
    throw std::runtime_error("'" + text + "' is no number; give one to " + name);
  return value;
}

std::size_t count(const Options& options, const std::string& name) {
  const double value = number(options, name);
  if (!(value >= 1 && value <= 1e9))
    throw std::runtime_error(name + " has to be a whole number from 1 on");
  return std::size_t(value);
}

std::vector<float> read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path + "; give the path of an existing file");
  const std::string bytes(std::istreambuf_iterator<char>(in), {});
  std::vector<float> numbers(bytes.size() / sizeof(float));
  std::copy_n(bytes.data(), numbers.size() * sizeof(float), reinterpret_cast<char*>(numbers.data()));
  return numbers;
}

template <class T>
void write(const std::string& path, const std::vector<T>& numbers) {
  if (path.empty()) return;
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(T));
  if (!out.flush()) throw std::runtime_error("cannot write " + path + "; is there room?");
}

/// A particle from the origin that enters a barrel `radius` mm from the beam axis.
caloforge::Particle barrel(double energy, double theta, double phi, int pdg, double radius) {
  return {energy, theta, phi, pdg,
          {radius * std::cos(phi), radius * std::sin(phi), radius / std::tan(theta)}};
}

std::vector<caloforge::Particle> particles(const Options& options) {
  const double radius = number(options, "--radius");
  if (options.at("--particles").empty())
    return std::vector<caloforge::Particle>(
        count(options, "-n"),
        barrel(1000 * number(options, "--energy-gev"), number(options, "--theta"),
               number(options, "--phi"), int(number(options, "--pdg")), radius));
  const auto rows = read(options.at("--particles"));
  std::vector<caloforge::Particle> all;
  for (std::size_t i = 0; i + 4 <= rows.size(); i += 4)
    all.push_back(barrel(rows[i], rows[i + 1], rows[i + 2], int(rows[i + 3]), radius));
  return all;
}

/// Memory of this process in MB, on Linux (0 elsewhere): VmRSS: is resident now, VmHWM: at most.
double memory_mb(const std::string& what) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (word == what && status >> word) return std::stod(word) / 1024;
  return 0;
}

/// The particles [first, last) of one thread, added to the rows of the others.
template <class Model>
void work(const std::shared_ptr<const Model>& model, const Options& options,
          const std::vector<caloforge::Particle>& all, const std::vector<float>& noise,
          std::size_t first, std::size_t last, std::size_t thread, std::vector<float>& showers,
          std::vector<double>& deposits) {
  caloforge::Generator<Model> generator(model, count(options, "--batch"));
  for (std::size_t i = first; i < last; ++i) generator.add(all[i]);

  std::mt19937_64 engine(std::uint64_t(number(options, "--seed")) + thread);
  std::normal_distribution<double> normal;
  const float* given = noise.empty() ? nullptr : &noise[first * model->description().n_noise];
  const auto gauss = [&]() -> double { return given ? double(*given++) : normal(engine); };

  const std::size_t cells = model->description().mesh.n_cells();
  generator.showers(gauss, [&](std::size_t i, const caloforge::Particle& p, const float* shower) {
    std::copy_n(shower, cells, &showers[(first + i) * cells]);
    if (!options.at("--deposits").empty())
      generator.deposits(first + i, p, shower, [&](const caloforge::Deposit& d) {
        deposits.insert(deposits.end(), {double(d.particle), d.position.x, d.position.y,
                                         d.position.z, d.energy});
      });
  });
}

template <class Model>
void generate(const Options& options) {
  const double before = memory_mb("VmRSS:");
  const auto model = std::make_shared<const Model>(options.at("MODEL"));
  const auto& description = model->description();
  const double loaded = memory_mb("VmRSS:");

  const auto all = particles(options);
  const auto noise =
      options.at("--noise").empty() ? std::vector<float>() : read(options.at("--noise"));
  if (!options.at("--noise").empty() && noise.size() != all.size() * description.n_noise)
    throw std::runtime_error("the noise holds " + std::to_string(noise.size()) +
                             " numbers; give it " + std::to_string(description.n_noise) +
                             " for each of the " + std::to_string(all.size()) + " showers");
  caloforge::Generator<Model> check(model);
  for (const auto& particle : all) check.add(particle);  // throws for what the model does not know

  const std::size_t cells = description.mesh.n_cells(), n_threads = count(options, "--threads");
  std::vector<float> showers(all.size() * cells);
  std::vector<std::vector<double>> deposits(n_threads);
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::future<void>> threads;
  for (std::size_t t = 0; t < n_threads; ++t)
    threads.push_back(std::async(std::launch::async, [&, t] {
      work(model, options, all, noise, all.size() * t / n_threads,
           all.size() * (t + 1) / n_threads, t, showers, deposits[t]);
    }));
  for (auto& thread : threads) thread.get();
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;

  for (std::size_t i = 0; i < all.size(); ++i) {
    double visible = 0;
    for (std::size_t cell = 0; cell < cells; ++cell) visible += showers[i * cells + cell];
    std::cout << "shower " << i << ": " << all[i].energy << " MeV, visible " << visible << " MeV\n";
  }
  std::cout << all.size() << " showers, " << took.count() / double(all.size()) << " ms per shower\n"
            << "resident memory: " << before << " MB before, " << loaded << " MB with the model, "
            << memory_mb("VmHWM:") << " MB at most in " << n_threads << " thread(s)\n";
  write(options.at("--out"), showers);
  std::vector<double> rows;
  for (const auto& part : deposits) rows.insert(rows.end(), part.begin(), part.end());
  write(options.at("--deposits"), rows);
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

void run(const Options& options) {
  const std::string& path = options.at("MODEL");
  if (ends_with(path, ".onnx")) {
#ifdef CALOFORGE_WITH_ONNX
    return generate<caloforge::OnnxModel>(options);
#endif
    throw std::runtime_error("built without ONNX Runtime; configure with -DONNXRUNTIME_ROOT=DIR");
  }
#ifdef CALOFORGE_WITH_TORCH
  return generate<caloforge::TorchModel>(options);
#endif
  throw std::runtime_error("built without LibTorch; configure with -DCALOFORGE_WITH_TORCH=ON");
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(parse(argc, argv));
  } catch (const std::exception& error) {
    std::cerr << "caloforge_example: " << error.what() << '\n';
    return 2;
  }
  return 0;
}
