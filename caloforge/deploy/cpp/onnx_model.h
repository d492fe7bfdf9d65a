/// \file onnx_model.h
/// \brief An ONNX file in ONNX Runtime, 1.15 or later.
#ifndef CALOFORGE_ONNX_MODEL_H
#define CALOFORGE_ONNX_MODEL_H

#include <onnxruntime_cxx_api.h>

#include <string>
#include <vector>

#include "caloforge.h"

namespace caloforge {

/// An ONNX file (.onnx) in ONNX Runtime.
class OnnxModel final {
 public:
  /// Reads the file; each run uses so many threads, by default the caller's alone.
  explicit OnnxModel(const std::string& path, int threads = 1)
      : environment_(ORT_LOGGING_LEVEL_ERROR, "caloforge"),
        session_(load(environment_, path, threads)),
        description_(describe(session_, path)) {}

  const Description& description() const { return description_; }

  void run(const float* conditions, const float* noise, std::size_t n, float* showers) const {
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeCPU);
    const auto wrap = [&](const float* data, std::vector<std::int64_t> shape) {
      std::size_t size = 1;
      for (const auto side : shape) size *= std::size_t(side);
      return Ort::Value::CreateTensor<float>(memory, const_cast<float*>(data), size, shape.data(),
                                             shape.size());
    };
    const auto& mesh = description_.mesh;
    const auto rows = std::int64_t(n);
    const Ort::Value inputs[] = {wrap(conditions, {rows, 4}),
                                 wrap(noise, {rows, std::int64_t(description_.n_noise)})};
    Ort::Value output = wrap(showers, {rows, std::int64_t(mesh.n_r()), std::int64_t(mesh.n_phi()),
                                       std::int64_t(mesh.n_z())});
    const char* const in_names[] = {"conditions", "noise"};
    const char* const out_names[] = {"showers"};
    try {
      session_.Run(Ort::RunOptions{nullptr}, in_names, inputs, 2, out_names, &output, 1);
    } catch (const Ort::Exception& error) {
      throw detail::failed("ONNX Runtime", error.what());
    }
  }

 private:
  static Ort::Session load(Ort::Env& environment, const std::string& path, int threads) {
    detail::must_exist(path);
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(threads);
    options.SetInterOpNumThreads(1);
    try {
      return Ort::Session(environment, path.c_str(), options);
    } catch (const Ort::Exception&) {
      throw std::runtime_error(path + " is not an ONNX file that this ONNX Runtime reads; write "
                                      "one with `caloforge export MODEL OUT.onnx --format onnx`");
    }
  }

  static Description describe(const Ort::Session& session, const std::string& path) {
    const auto metadata = session.GetModelMetadata();
    const auto get = [&](const std::string& name) -> std::string {
      Ort::AllocatorWithDefaultOptions allocator;
      const auto value = metadata.LookupCustomMetadataMapAllocated(name.c_str(), allocator);
      return value ? value.get() : "";
    };
    return Description::read(get, path);
  }

  Ort::Env environment_;
  mutable Ort::Session session_;  // Run() is not const, but safe in several threads
  Description description_;
};

}  // namespace caloforge

#endif  // CALOFORGE_ONNX_MODEL_H
