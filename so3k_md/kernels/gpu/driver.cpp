/* so3k-md: the CUDA driver and compiler. MIT. */

#include "driver.h"

#include <ATen/ATen.h>
#include <dlfcn.h>

#include <mutex>
#include <vector>

namespace So3k {
namespace {

  constexpr int CAPABILITY_MAJOR = 75, CAPABILITY_MINOR = 76;    // attributes of a device
  constexpr const char *DRIVER = "libcuda.so.1";

  /// One of these libraries, loaded or already in the process.
  void *opened(const std::vector<std::string> &names, const std::string &remedy)
  {
    for (const auto &name : names)
      if (auto *library = dlopen(name.c_str(), RTLD_NOW | RTLD_NOLOAD)) return library;
    for (const auto &name : names)
      if (auto *library = dlopen(name.c_str(), RTLD_NOW)) return library;
    TORCH_CHECK(false, "[so3k] ", names.back(), " cannot be loaded: ", remedy);
  }

  template <typename F> void find(void *library, F *&function, const char *name)
  {
    function = reinterpret_cast<F *>(dlsym(library, name));
    TORCH_CHECK(function, "[so3k] the CUDA libraries have no function ", name,
                ": install a driver for CUDA 12 or later");
  }

  /// NVRTC in the wheels that torch depends on, and wherever else the loader finds it.
  std::vector<std::string> nvrtc_names()
  {
    Dl_info torch;
    dladdr(reinterpret_cast<void *>(&at::globalContext), &torch);
    const std::string library = torch.dli_fname;
    const auto packages = library.substr(0, library.rfind("/torch/lib/"));
    std::vector<std::string> names;
    for (const auto *name : {"libnvrtc.so.13", "libnvrtc.so.12"}) names.emplace_back(name);
    for (const auto *place :
         {"/nvidia/cu13/lib/libnvrtc.so.13", "/nvidia/cuda_nvrtc/lib/libnvrtc.so.12"})
      names.push_back(packages + place);
    return names;
  }

  Driver load_driver()
  {
    auto *library = opened({DRIVER}, "install the driver of the GPU");
    Driver d{};
#define SO3K_FIND(name) find(library, d.name, #name)
    SO3K_FIND(cuInit), SO3K_FIND(cuDeviceGet), SO3K_FIND(cuDeviceGetAttribute);
    SO3K_FIND(cuDevicePrimaryCtxRetain), SO3K_FIND(cuCtxPushCurrent_v2);
    SO3K_FIND(cuCtxPopCurrent_v2), SO3K_FIND(cuModuleLoadData), SO3K_FIND(cuModuleGetFunction);
    SO3K_FIND(cuLaunchKernel), SO3K_FIND(cuGetErrorName);
#undef SO3K_FIND
    return d;
  }

  Nvrtc load_nvrtc()
  {
    auto *library = opened(nvrtc_names(), "install torch with CUDA, whose wheels include NVRTC");
    Nvrtc n{};
#define SO3K_FIND(name) find(library, n.name, #name)
    SO3K_FIND(nvrtcVersion), SO3K_FIND(nvrtcCreateProgram), SO3K_FIND(nvrtcCompileProgram);
    SO3K_FIND(nvrtcGetProgramLogSize), SO3K_FIND(nvrtcGetProgramLog), SO3K_FIND(nvrtcGetCUBINSize);
    SO3K_FIND(nvrtcGetCUBIN), SO3K_FIND(nvrtcDestroyProgram);
#undef SO3K_FIND
    return n;
  }

}    // namespace

const Driver &driver()
{
  static const Driver loaded = [] {
    const auto d = load_driver();
    const int error = d.cuInit(0);
    TORCH_CHECK(error == 0, "[so3k] cuInit failed with error ", error,
                ": check the driver with nvidia-smi");
    return d;
  }();
  return loaded;
}

const Nvrtc &nvrtc()
{
  static const Nvrtc loaded = load_nvrtc();
  return loaded;
}

std::string gpu_fault()
{
  try {
    driver();
    nvrtc();
    return "";
  } catch (const c10::Error &error) {
    return error.what_without_backtrace();
  }
}

void require(int error, const char *call)
{
  if (error == 0) return;
  const char *name = nullptr;
  driver().cuGetErrorName(error, &name);
  TORCH_CHECK(false, "[so3k] ", call, " failed: ", name ? name : "unknown error", " (", error, ")");
}

int capability(c10::DeviceIndex ordinal)
{
  int device = 0, major = 0, minor = 0;
  require(driver().cuDeviceGet(&device, ordinal), "cuDeviceGet");
  require(driver().cuDeviceGetAttribute(&major, CAPABILITY_MAJOR, device), "cuDeviceGetAttribute");
  require(driver().cuDeviceGetAttribute(&minor, CAPABILITY_MINOR, device), "cuDeviceGetAttribute");
  return 10 * major + minor;
}

void *current_stream(c10::Device device)
{
  if (!device.is_cuda()) return nullptr;
  // of libtorch_cuda, which is in the process if a tensor is on a GPU
  using Get = int(int32_t, void **);
  static auto *get =
      reinterpret_cast<Get *>(dlsym(RTLD_DEFAULT, "aoti_torch_get_current_cuda_stream"));
  if (!get) {
    auto *library = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_NOLOAD);
    if (library)
      get = reinterpret_cast<Get *>(dlsym(library, "aoti_torch_get_current_cuda_stream"));
  }
  TORCH_CHECK(get, "[so3k] this torch does not give its CUDA stream: use torch 2.9 or later");
  void *stream = nullptr;
  TORCH_CHECK(get(device.index(), &stream) == 0, "[so3k] torch has no CUDA stream on ", device);
  return stream;
}

}    // namespace So3k
