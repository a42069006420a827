/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_ABI_H
#define SO3K_ABI_H

#include <string>

namespace So3k {

/// Why the running LAMMPS differs from the one for which this plugin was compiled, "" if it does
/// not. Uses only what is the same in all versions of LAMMPS: functions of its C library, and names
/// and sizes in its symbol table.
///
/// @param lmp     the LAMMPS object
/// @param vtable  of PairSo3k: its size tells how many functions Pair had at compilation
std::string foreign_lammps(void *lmp, const void *vtable);

}    // namespace So3k

#endif
