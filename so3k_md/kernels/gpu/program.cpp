/* so3k-md: GPU kernels for one shape of a layer. MIT. */

#include "program.h"

#include <c10/util/Exception.h>
#include <c10/util/hash.h>
#include <torch/library.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <system_error>
#include <tuple>

#include "../cpu/operators.h"
#include "driver.h"

// The files that NVRTC compiles, as `device_sources` of kernels/build.py has them. The library
// holds the bytes of each and a zero; the build runs where these files lie.
#define SO3K_HEADERS(file)                                                                         \
  file(everywhere) file(switching) file(dispersion) file(exchange) file(attention) file(near)      \
      file(groups) file(pairs) file(lists) file(long_range) file(degrees) file(harmonics)          \
          file(shape) file(warp) file(product) file(tile) file(adjoint) file(queue) file(entry)    \
              file(grid) file(long_pair)
#define SO3K_SOURCES(file)                                                                         \
  file(near) file(geometry) file(sphc) file(update) file(long_pairs) file(long_rows) file(lists)

#define SO3K_EMBED(label, name)                                                                    \
  asm(".section .rodata\n" #label ":\n.incbin \"" name "\"\n.byte 0\n.previous\n");                \
  extern "C" __attribute__((visibility("hidden"))) const char label[];
#define SO3K_EMBED_HEADER(name) SO3K_EMBED(so3k_gpu_##name##_h, #name ".h")
#define SO3K_EMBED_SOURCE(name) SO3K_EMBED(so3k_gpu_##name##_cu, #name ".cu")
SO3K_HEADERS(SO3K_EMBED_HEADER)
SO3K_SOURCES(SO3K_EMBED_SOURCE)

namespace fs = std::filesystem;

namespace So3k {
namespace {

#define SO3K_NAME(name) #name ".h",
#define SO3K_TEXT(name) so3k_gpu_##name##_h,
#define SO3K_ENTRY(name) {#name ".cu", so3k_gpu_##name##_cu},
  const std::vector<const char *> HEADER_NAMES = {SO3K_HEADERS(SO3K_NAME)};
  const std::vector<const char *> HEADERS = {SO3K_HEADERS(SO3K_TEXT)};
  const std::map<std::string, const char *> SOURCES = {SO3K_SOURCES(SO3K_ENTRY)};

  std::vector<std::string> options_of(const Program &program, int capability)
  {
    std::vector<std::string> options = {"--gpu-architecture=sm_" + std::to_string(capability),
                                        "--std=c++17"};
    options.insert(options.end(), program.options.begin(), program.options.end());
    return options;
  }

  std::string compiled(const Program &program, const std::vector<std::string> &options)
  {
    const auto &rtc = nvrtc();
    void *made = nullptr;
    const int created = rtc.nvrtcCreateProgram(
        &made, SOURCES.at(program.source), program.source.c_str(), static_cast<int>(HEADERS.size()),
        HEADERS.data(), HEADER_NAMES.data());
    TORCH_CHECK(created == 0, "[so3k] nvrtcCreateProgram failed with error ", created);
    std::vector<const char *> words;
    for (const auto &option : options) words.push_back(option.c_str());
    const int error = rtc.nvrtcCompileProgram(made, static_cast<int>(words.size()), words.data());
    std::size_t size = 0;
    rtc.nvrtcGetProgramLogSize(made, &size);
    std::string log(size, ' ');
    rtc.nvrtcGetProgramLog(made, log.data());
    std::string code;
    if (error == 0) {
      rtc.nvrtcGetCUBINSize(made, &size);
      code.resize(size);
      rtc.nvrtcGetCUBIN(made, code.data());
    }
    rtc.nvrtcDestroyProgram(&made);
    TORCH_CHECK(error == 0, "[so3k] NVRTC cannot compile ", program.source, " with ", options[0],
                "; use kernels = off: ", log);
    return code;
  }

  std::string version()
  {
    int major = 0, minor = 0;
    nvrtc().nvrtcVersion(&major, &minor);
    return "NVRTC " + std::to_string(major) + "." + std::to_string(minor);
  }

  /// A hash of all that decides the machine code.
  std::string key_of(const Program &program, const std::vector<std::string> &options)
  {
    std::string content = version() + "\n";
    for (const auto &option : options) content += option + "\n";
    for (const auto *header : HEADERS) content += header;
    return c10::sha1(content + SOURCES.at(program.source)).str();
  }

  fs::path cache()
  {
    const char *root = std::getenv("XDG_CACHE_HOME"), *home = std::getenv("HOME");
    return (root && *root ? fs::path(root) : fs::path(home ? home : "/tmp") / ".cache") /
        "so3k-md" / "gpu";
  }

  std::string read(const fs::path &file)
  {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  /// Writes a file atomically. A cache that cannot be written costs time, not results.
  void write(const fs::path &file, const std::string &content)
  {
    std::error_code ignored;
    fs::create_directories(file.parent_path(), ignored);
    const auto part = file.string() + "." + std::to_string(getpid());
    std::ofstream out(part, std::ios::binary);
    out << content << c10::sha1(content).str();
    out.close();
    if (out)
      fs::rename(part, file, ignored);
    else
      fs::remove(part, ignored);
  }

  /// The content of a file of `write`, or nothing if it is missing or damaged.
  std::string read_whole(const fs::path &file)
  {
    constexpr std::size_t HASH = 40;
    const auto found = read(file);
    if (found.size() <= HASH) return "";
    const auto content = found.substr(0, found.size() - HASH);
    return c10::sha1(content).str() == found.substr(content.size()) ? content : "";
  }

  /// Makes the primary context of a device, which torch uses too, that of this thread.
  class Current {
   public:
    explicit Current(c10::DeviceIndex ordinal)
    {
      require(driver().cuCtxPushCurrent_v2(context_of(ordinal)), "cuCtxPushCurrent");
    }
    ~Current()
    {
      void *before = nullptr;
      driver().cuCtxPopCurrent_v2(&before);
    }
    Current(const Current &) = delete;
    Current &operator=(const Current &) = delete;

   private:
    static void *context_of(c10::DeviceIndex ordinal)
    {
      static std::mutex mutex;
      static std::map<c10::DeviceIndex, void *> contexts;
      const std::lock_guard<std::mutex> lock(mutex);
      auto &context = contexts[ordinal];
      if (!context) {
        int device = 0;
        require(driver().cuDeviceGet(&device, ordinal), "cuDeviceGet");
        require(driver().cuDevicePrimaryCtxRetain(&context, device), "cuDevicePrimaryCtxRetain");
      }
      return context;
    }
  };

  std::string joined(const Program &program)
  {
    auto text = program.source;
    for (const auto &option : program.options) text += " " + option;
    return text;
  }

  /// The kernel on a device, in whose context this thread is.
  void *function_of(const Program &program, const char *kernel, c10::DeviceIndex ordinal)
  {
    static std::mutex mutex;
    static std::map<std::tuple<c10::DeviceIndex, std::string>, void *> modules;
    static std::map<std::tuple<void *, std::string>, void *> functions;
    const std::lock_guard<std::mutex> lock(mutex);
    auto &module = modules[{ordinal, joined(program)}];
    if (!module) {
      const auto code = machine_code(program, capability(ordinal));
      require(driver().cuModuleLoadData(&module, code.data()), "cuModuleLoadData");
    }
    auto &function = functions[{module, kernel}];
    if (!function)
      require(driver().cuModuleGetFunction(&function, module, kernel), "cuModuleGetFunction");
    return function;
  }

}    // namespace

std::string define(const std::string &name, int64_t value)
{
  return "-DSO3K_" + name + "=" + std::to_string(value);
}

std::vector<std::string> degree_options(const std::vector<int64_t> &degrees)
{
  std::string each;
  for (const auto degree : degrees) each += (each.empty() ? "" : ",") + std::to_string(degree);
  return {define("DEGREES", static_cast<int64_t>(degrees.size())), "-DSO3K_EACH_DEGREE=" + each};
}

void require_float(const at::Tensor &tensor)
{
  TORCH_CHECK(tensor.scalar_type() == at::kFloat,
              "[so3k] the kernels for GPUs work in float32, not in ", tensor.scalar_type(),
              ": load the model in float32 or use kernels = off");
}

std::string machine_code(const Program &program, int capability)
{
  const auto options = options_of(program, capability);
  const auto name = program.source + "-sm_" + std::to_string(capability) + "-";
  const auto file = cache() / (name + key_of(program, options) + ".cubin");
  auto code = read_whole(file);
  if (code.empty()) {
    code = compiled(program, options);
    write(file, code);
  }
  return code;
}

void launch(const Program &program, const char *kernel, c10::Device device, int64_t blocks,
            int threads, const void *argument)
{
  if (blocks == 0) return;
  const auto ordinal = device.has_index() ? device.index() : c10::DeviceIndex(0);
  const Current current(ordinal);
  auto *function = function_of(program, kernel, ordinal);
  void *arguments[] = {const_cast<void *>(argument)};
  require(driver().cuLaunchKernel(function, static_cast<unsigned>(blocks), 1, 1,
                                  static_cast<unsigned>(threads), 1, 1, 0, current_stream(device),
                                  arguments, nullptr),
          kernel);
}

}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  library.def(So3k::operators::GPU_FAULT, So3k::gpu_fault);
  library.def(So3k::operators::GPU_VERSION, So3k::version);
}
