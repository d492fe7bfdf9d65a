// The declarations of ONNX Runtime's C++ interface that onnx_model.h uses, without bodies: enough to
// compile against where its headers are not installed.
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>

enum OrtLoggingLevel { ORT_LOGGING_LEVEL_ERROR = 3 };
enum OrtAllocatorType { OrtDeviceAllocator = 0 };
enum OrtMemType { OrtMemTypeCPU = -1 };
struct OrtAllocator;
struct OrtMemoryInfo;

namespace Ort {

struct Exception : std::exception {};
struct Env {
  Env(OrtLoggingLevel, const char*);
};
struct MemoryInfo {
  static MemoryInfo CreateCpu(OrtAllocatorType, OrtMemType);
  operator const OrtMemoryInfo*() const;
};
struct AllocatorWithDefaultOptions {
  operator OrtAllocator*() const;
};
struct SessionOptions {
  SessionOptions& SetIntraOpNumThreads(int);
  SessionOptions& SetInterOpNumThreads(int);
};
struct RunOptions {
  explicit RunOptions(std::nullptr_t);
};
struct Value {
  Value(Value&&);
  Value(const Value&) = delete;
  template <class T>
  static Value CreateTensor(const OrtMemoryInfo*, T*, std::size_t, const std::int64_t*, std::size_t);
};
struct ModelMetadata {
  std::unique_ptr<char[]> LookupCustomMetadataMapAllocated(const char*, OrtAllocator*) const;
};
struct Session {
  Session(const Env&, const char*, const SessionOptions&);
  ModelMetadata GetModelMetadata() const;
  void Run(const RunOptions&, const char* const*, const Value*, std::size_t, const char* const*,
           Value*, std::size_t);
};

}  // namespace Ort
