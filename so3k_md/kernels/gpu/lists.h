/* so3k-md: the arguments of the kernels of `neighbor_lists`, as host and device see them. MIT. */

#ifndef SO3K_GPU_LISTS_H
#define SO3K_GPU_LISTS_H

namespace So3k {

/// What `NeighborLists::state` tells.
enum ListState : int {
  RENEW,       // whether the lists have to be made in this call
  OVERFLOW,    // whether the rows, or the near pairs, do not fit
  RENEWALS,    // how often the lists were made
  LONGEST,     // number of entries of the longest row, or TOO_THIN
  NEAR,        // number of near pairs now
  LIST_STATES
};
constexpr int TOO_THIN = 0x7fffffff;    // the box, for the images of an entry

/// All pairs within far + skin as a row for each centre, those within near + skin first.
struct NeighborLists {
  long long atoms, cells, width, pairs;    // room: for cells, entries of a row, near pairs
  bool periodic;                           // along all axes, or along none
  double near, far, skin;                  // Å
  const double *positions, *cell;          // (atoms, 3) in any image, (3, 3)
  int *state;                              // (LIST_STATES)
  double *listed;    // (atoms + 3, 3): fractional coordinates and the inverse cell of the lists
  int *begins, *order;    // (cells + 1), (atoms): atoms of each cell
  int *length, *close;    // (atoms): entries of each row, those of them within near + skin
  long long *rows;        // (atoms, width); see device/entry.h
  int *now;               // (atoms): pairs within near now
  long long *first;       // (atoms + 1): where those of each centre begin
  double *places;         // (atoms + 3, 3): positions in the images of the lists, and the cell
  long long *i, *j;       // (pairs), pairs within near now, in the order of their centres
  double *vectors;        // (pairs, 3), r_j - r_i
};

}    // namespace So3k

#endif
