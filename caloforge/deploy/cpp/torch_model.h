/// \file torch_model.h
/// \brief A TorchScript file in LibTorch, whose headers and libraries come with the torch wheel.
#ifndef CALOFORGE_TORCH_MODEL_H
#define CALOFORGE_TORCH_MODEL_H

#include <ATen/Parallel.h>
#include <torch/script.h>

#include <string>
#include <unordered_map>
#include <utility>

#include "caloforge.h"

namespace caloforge {

/// A TorchScript file (.pt) in LibTorch.
class TorchModel final {
 public:
  /// Reads the file. LibTorch's number of threads belongs to the process, and is set here.
  explicit TorchModel(const std::string& path, int threads = 1)
      : TorchModel(path, load(path, threads)) {}

  const Description& description() const { return description_; }

  void run(const float* conditions, const float* noise, std::size_t n, float* showers) const {
    const torch::InferenceMode guard;
    const auto rows = std::int64_t(n), cells = std::int64_t(description_.mesh.n_cells());
    // from_blob wants a pointer that is not const; the inputs are only read.
    const auto wrap = [rows](const float* data, std::size_t columns) {
      return torch::from_blob(const_cast<float*>(data), {rows, std::int64_t(columns)});
    };
    try {
      const auto out = module_.forward({wrap(conditions, 4), wrap(noise, description_.n_noise)});
      torch::from_blob(showers, {rows, cells}).copy_(out.toTensor().reshape({rows, cells}));
    } catch (const c10::Error& error) {
      throw detail::failed("LibTorch", error.what_without_backtrace());
    } catch (const std::exception& error) {
      throw detail::failed("LibTorch", error.what());
    }
  }

 private:
  struct Loaded {
    torch::jit::Module module;
    std::unordered_map<std::string, std::string> metadata;
  };

  TorchModel(const std::string& path, Loaded loaded)
      : module_(std::move(loaded.module)),
        description_(Description::read(
            [&](const std::string& name) { return loaded.metadata[name]; }, path)) {}

  static Loaded load(const std::string& path, int threads) {
    detail::must_exist(path);
    at::set_num_threads(threads);
    Loaded loaded;
    for (const auto& name : Description::names()) loaded.metadata[name] = "";
    try {
      loaded.module = torch::jit::load(path, torch::kCPU, loaded.metadata);
    } catch (const c10::Error&) {
      throw std::runtime_error(path + " is not a TorchScript file; write one with `caloforge "
                                      "export MODEL OUT.pt --format torchscript`");
    }
    loaded.module.eval();
    return loaded;
  }

  // forward() is not const, but changes nothing in a module that is evaluated.
  mutable torch::jit::Module module_;
  Description description_;
};

}  // namespace caloforge

#endif  // CALOFORGE_TORCH_MODEL_H
