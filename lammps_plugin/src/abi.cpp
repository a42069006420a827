/* so3k-md: pair_style so3k, the LAMMPS that loads it. GPL-2, see ../LICENSE. */

#include "abi.h"

#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <link.h>
#include <mpi.h>

#include "lmptype.h"

namespace So3k {

namespace {

  constexpr char REMEDY[] =
      "build the plugin again for this one ('so3k-md lammps build', or CMake, see its README)";

  /// A function of the C library of LAMMPS, null where the program does not export it.
  template <typename Function> Function *library(const char *name)
  {
    return reinterpret_cast<Function *>(dlsym(RTLD_DEFAULT, name));
  }

  /// Bytes of the symbol at this address, 0 where the symbol table has none.
  size_t size_of_symbol(const void *address)
  {
    Dl_info info;
    const ElfW(Sym) *symbol = nullptr;
    void *entry = nullptr;
    const int found = dladdr1(address, &info, &entry, RTLD_DL_SYMENT);
    symbol = static_cast<const ElfW(Sym) *>(entry);
    return found && symbol ? symbol->st_size : 0;
  }

  /// "Update 4" is 4; builds without this information have -1.
  int running_update()
  {
    auto *descriptor = library<const char *()>("_ZN9LAMMPS_NS6LAMMPS14git_descriptorEv");
    if (!descriptor || std::strncmp(descriptor(), "stable_", 7) != 0) return -1;
    const auto *update = std::strstr(descriptor(), "_update");
    return update ? std::atoi(update + std::strlen("_update")) : 0;
  }

  std::string release(int version, int update)
  {
    return std::to_string(version) + (update > 0 ? " update " + std::to_string(update) : "");
  }

  std::string other_release(void *lmp)
  {
    auto *version = library<int(void *)>("lammps_version");
    if (!version || !SO3K_LAMMPS_VERSION) return "";
    const int running = version(lmp), update = running_update();
    const bool same_update = update < 0 || SO3K_LAMMPS_UPDATE < 0 || update == SO3K_LAMMPS_UPDATE;
    if (running == SO3K_LAMMPS_VERSION && same_update) return "";
    return "it was built for LAMMPS " + release(SO3K_LAMMPS_VERSION, SO3K_LAMMPS_UPDATE) +
        ", and this LAMMPS is " + release(running, update);
  }

  std::string other_sizes(void *lmp)
  {
    auto *setting = library<int(void *, const char *)>("lammps_extract_setting");
    if (!setting) return "";
    const int tagint = setting(lmp, "tagint"), bigint = setting(lmp, "bigint");
    if (tagint == sizeof(LAMMPS_NS::tagint) && bigint == sizeof(LAMMPS_NS::bigint)) return "";
    const std::string sizes = tagint == 8 ? "bigbig" : (bigint == 8 ? "smallbig" : "smallsmall");
    return "this LAMMPS has other integer sizes: build the plugin with CMake and -DLAMMPS_SIZES=" +
        sizes;
  }

  std::string other_mpi()
  {
#ifdef OPEN_MPI
    constexpr bool own = true;
#else
    constexpr bool own = false;
#endif
    const bool running = dlsym(RTLD_DEFAULT, "ompi_mpi_comm_world") != nullptr;
    if (own == running) return "";
    return std::string("it was built with ") + (own ? "Open MPI" : "MPICH") +
        ", and this LAMMPS runs on " + (running ? "Open MPI" : "another MPI") +
        ": build the plugin with CMake and the MPI_INCLUDE_DIR of its mpi.h";
  }

  /// Updates of one release have added and removed virtual functions of Pair.
  std::string other_classes(const void *vtable)
  {
    const auto own_size = size_of_symbol(vtable);
    const auto running_size = size_of_symbol(dlsym(RTLD_DEFAULT, "_ZTVN9LAMMPS_NS4PairE"));
    if (!own_size || !running_size || own_size == running_size) return "";
    return "it was built for another update of LAMMPS";
  }

}    // namespace

std::string foreign_lammps(void *lmp, const void *vtable)
{
  for (const auto &difference :
       {other_release(lmp), other_classes(vtable), other_sizes(lmp), other_mpi()})
    if (!difference.empty())
      return "the so3k plugin cannot be used: " + difference +
          (difference.find("CMake") == std::string::npos ? std::string("; ") + REMEDY : "");
  return "";
}

}    // namespace So3k
