/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_ABI_H
#define SO3K_ABI_H

#include <string>

namespace So3k {

/// Why the running LAMMPS is not the one that this plugin was compiled for, "" if it is. Asked is
/// only what has the same form in every version of LAMMPS: functions of its C library, and names
/// and sizes in its symbol table.
///
/// @param lmp     the LAMMPS object
/// @param vtable  of PairSo3k: it has as many functions as Pair had when this was compiled
std::string foreign_lammps(void *lmp, const void *vtable);

}    // namespace So3k

#endif
