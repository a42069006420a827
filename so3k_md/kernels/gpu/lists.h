/* so3k-md: the arguments of the kernels of `neighbor_lists`, as host and device see them. MIT. */

#ifndef SO3K_GPU_LISTS_H
#define SO3K_GPU_LISTS_H

namespace So3k {

/// What `NeighborLists::state` tells.
enum ListState : int {
  RENEW,       // whether the lists have to be made in this call
  OVERFLOW,    // whether the rows, or the near pairs, did not fit when the lists were made
  RENEWALS,    // how often they were made
  LONGEST,     // number of entries of the longest row
  NEAR,        // number of near pairs
  LIST_STATES
};

/// All pairs within far + skin as a row for each centre, and those within near + skin one after the
/// other, in the order of their centres.
struct NeighborLists {
  long long atoms, cells, width, pairs;    // room: for cells, entries of a row, near pairs
  bool periodic;                           // along all axes, or along none
  double near, far, skin;                  // Å
  const double *positions, *cell;          // (atoms, 3) in any image, (3, 3)
  int *state;                              // (LIST_STATES)
  double *listed;    // (atoms + 3, 3): fractional coordinates and the inverse cell of the lists
  int *begins, *order;    // (cells + 1), (atoms): atoms of each cell
  int *length, *close;    // (atoms): entries of each row, those of them that are near
  long long *rows;        // (atoms, width); see device/entry.h
  long long *first;       // (atoms + 1): near pairs of each centre
  long long *i, *j;       // (pairs)
  int *image;             // (pairs)
  double *places;         // (atoms + 3, 3): positions in the images of the lists, and the cell
  double *vectors;        // (pairs, 3), r_j - r_i of the near pairs
};

}    // namespace So3k

#endif
