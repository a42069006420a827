/* so3k-md: libcuda and libnvrtc for tests on machines without a GPU. MIT.
 *
 * "Machine code" is the text of the program. Loading it compiles it by g++ on top of emulate.h,
 * which lies in the folder SO3K_EMULATION; a launch runs it on the CPU. SO3K_EMULATION_SEED sets
 * the order of its threads. */

#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

namespace fs = std::filesystem;

namespace {

constexpr char END = '\x1e';    // of a part of the machine code

struct Program {
  std::string source, headers, options;
};

struct Module {
  void *library;
};

struct Function {
  int (*run)(unsigned blocks, unsigned threads, const void *argument, unsigned seed, char *message);
  std::string name;
};

long launches = 0;
std::string last_fault;

/// A wrapper for each kernel of a source.
std::string wrappers(const std::string &source)
{
  const std::regex kernel("__launch_bounds__\\([^)]*\\)\\s+(\\w+)\\(");
  std::string text;
  for (std::sregex_iterator at(source.begin(), source.end(), kernel), end; at != end; ++at) {
    const auto name = (*at)[1].str();
    text += "extern \"C\" __attribute__((visibility(\"default\"))) int run_" + name +
        "(unsigned blocks, unsigned threads, const void *argument, unsigned seed, char *message)\n"
        "{ return so3k_run(" +
        name + ", blocks, threads, argument, seed, message); }\n";
  }
  return text;
}

constexpr const char *RUN = R"(
template <typename A>
int so3k_run(void (*kernel)(A), unsigned blocks, unsigned threads, const void *argument, unsigned seed, char *message)
{
  try {
    emulate::Machine::now().seed = seed;
    emulate::launch(kernel, blocks, threads, *static_cast<const A *>(argument));
    return 0;
  } catch (const std::exception &error) {
    std::strncpy(message, error.what(), 399);
    return 1;
  }
}
)";

/// A text in which the test plants a fault.
std::string with_fault(std::string text)
{
  const char *before = std::getenv("SO3K_EMULATION_OLD"),
             *after = std::getenv("SO3K_EMULATION_NEW");
  for (std::size_t at = 0; before && (at = text.find(before, at)) != std::string::npos;
       at += std::strlen(after))
    text.replace(at, std::strlen(before), after);
  return text;
}

/// The library that emulates this machine code, compiled once for each folder.
fs::path emulated(const std::string &code)
{
  const fs::path folder = std::getenv("SO3K_EMULATION");
  const auto work = folder / std::to_string(std::hash<std::string>{}(with_fault(code)));
  const auto library = work / "emulated.so";
  if (fs::exists(library)) return library;
  fs::create_directories(work);
  std::istringstream parts(with_fault(code.substr(4)));
  std::string options, source, name, text;
  std::getline(parts, options, END);
  std::getline(parts, source, END);
  while (std::getline(parts, name, END) && std::getline(parts, text, END))
    std::ofstream(work / name) << text;
  std::ofstream(work / "kernels.cpp") << "#include \"emulate.h\"\n"
                                      << source << RUN << wrappers(source);
  const auto part = work / "part.so";
  const auto command =
      "g++ -std=c++17 -O2 -march=native -fPIC -shared -fvisibility=hidden -fno-gnu-unique -w " +
      options + " -I" + folder.string() + " -I" + work.string() + " " +
      (work / "kernels.cpp").string() + " -o " + part.string() + " >" + (work / "log").string() +
      " 2>&1";
  if (std::system(command.c_str())) return {};
  fs::rename(part, library);
  return library;
}

}    // namespace

extern "C" {

int nvrtcVersion(int *major, int *minor)
{
  *major = 0, *minor = 0;
  return 0;
}
int nvrtcCreateProgram(void **made, const char *source, const char *, int n,
                       const char *const *headers, const char *const *names)
{
  auto *program = new Program{source, "", ""};
  for (int k = 0; k < n; ++k) program->headers += names[k] + (END + std::string(headers[k])) + END;
  *made = program;
  return 0;
}
int nvrtcCompileProgram(void *made, int n, const char *const *options)
{
  for (int k = 0; k < n; ++k)
    if (!std::strncmp(options[k], "-D", 2))
      static_cast<Program *>(made)->options += " " + std::string(options[k]);
  return 0;
}
int nvrtcGetProgramLogSize(void *, std::size_t *size)
{
  *size = 0;
  return 0;
}
int nvrtcGetProgramLog(void *, char *)
{
  return 0;
}
static std::string code_of(void *made)
{
  const auto &program = *static_cast<Program *>(made);
  return "FAKE" + program.options + END + program.source + END + program.headers + '\0';
}
int nvrtcGetCUBINSize(void *made, std::size_t *size)
{
  *size = code_of(made).size();
  return 0;
}
int nvrtcGetCUBIN(void *made, char *code)
{
  const auto text = code_of(made);
  std::memcpy(code, text.data(), text.size());
  return 0;
}
int nvrtcDestroyProgram(void **made)
{
  delete static_cast<Program *>(*made);
  return 0;
}

int cuInit(unsigned)
{
  return 0;
}
int cuDeviceGet(int *device, int ordinal)
{
  *device = ordinal;
  return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int)
{
  *value = attribute == 75 ? 9 : 0;
  return 0;
}
int cuDevicePrimaryCtxRetain(void **context, int)
{
  static int primary;
  *context = &primary;
  return 0;
}
int cuCtxPushCurrent_v2(void *)
{
  return 0;
}
int cuCtxPopCurrent_v2(void **)
{
  return 0;
}
int cuGetErrorName(int, const char **name)
{
  *name = last_fault.c_str();
  return 0;
}
int cuModuleLoadData(void **module, const void *code)
{
  const auto *text = static_cast<const char *>(code);
  if (std::strncmp(text, "FAKE", 4)) {
    last_fault = "this is no code of the fake compiler";
    return 200;
  }
  const auto file = emulated(text);
  auto *library = file.empty() ? nullptr : dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    last_fault = "g++ failed, see the log in SO3K_EMULATION";
    return 201;
  }
  *module = library;
  return 0;
}
int cuModuleGetFunction(void **function, void *module, const char *name)
{
  auto *run = dlsym(module, ("run_" + std::string(name)).c_str());
  if (!run) {
    last_fault = "no kernel " + std::string(name);
    return 500;
  }
  *function = new Function{reinterpret_cast<decltype(Function::run)>(run), name};
  return 0;
}
int cuLaunchKernel(void *function, unsigned blocks, unsigned, unsigned, unsigned threads, unsigned,
                   unsigned, unsigned, void *, void **arguments, void **)
{
  using Open = void(bool);
  auto *open = reinterpret_cast<Open *>(dlsym(RTLD_DEFAULT, "so3k_pretend_open"));
  const char *seed = std::getenv("SO3K_EMULATION_SEED");
  char message[400] = {};
  if (open) open(true);
  const int failed = static_cast<Function *>(function)->run(blocks, threads, arguments[0],
                                                            seed ? std::atoi(seed) : 0, message);
  if (open) open(false);
  ++launches;
  last_fault = message;
  return failed ? 719 : 0;
}
long so3k_launches()
{
  return launches;
}
}
