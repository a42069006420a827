/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#include "kernels.h"

#include "seal.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include <dlfcn.h>

#include <fstream>
#include <iterator>
#include <stdexcept>

namespace So3k {

namespace {

  /// Why the kernels for GPUs cannot be compiled or run; empty if they can.
  std::string gpu_fault()
  {
    const auto op = c10::Dispatcher::singleton().findSchema({"so3k::gpu_fault", ""});
    if (!op) return "so3k_kernels.so has no kernels for GPUs";
    auto fault = op->typed<std::string()>().call();
    const std::string tag = "[so3k] ";
    return fault.rfind(tag, 0) == 0 ? fault.substr(tag.size()) : fault;
  }

}    // namespace

bool load_kernels()
{
  const auto known = [] {
    return c10::Dispatcher::singleton().findSchema({"so3k::attend", ""}).has_value();
  };
  if (known()) return true;
  Dl_info here;
  if (!dladdr(reinterpret_cast<void *>(&load_kernels), &here)) return false;
  const std::string plugin = here.dli_fname;
  const auto library = plugin.substr(0, plugin.rfind('/') + 1) + "so3k_kernels.so";
  std::ifstream stream(library, std::ios::binary);
  if (!stream) return false;
  try {
    // the loader ends the process if a library is truncated
    require_seal({std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()});
  } catch (const std::runtime_error &error) {
    throw std::runtime_error(library + " cannot be used, " + error.what() +
                             "; build it again with 'so3k-md lammps build --force'");
  }
  // never closed: torch keeps what it registers
  return dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE) && known();
}

Choice choose(bool has_code, at::Device device, at::ScalarType precision)
{
  if (precision != at::kFloat) return {false, "the kernels are for float32"};
  if (!has_code) return {false, "the model file has no code for kernels"};
  if (!load_kernels()) return {false, "so3k_kernels.so is not in the folder of the plugin"};
  if (!device.is_cpu()) {
    const auto fault = gpu_fault();
    if (!fault.empty()) return {false, fault};
  }
  return {true, ""};
}

}    // namespace So3k
