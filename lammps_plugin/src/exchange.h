/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_EXCHANGE_H
#define SO3K_EXCHANGE_H

#include <ATen/ATen.h>
#include <mpi.h>
#include <vector>

namespace So3k {

/// Where a row of the graph lives: the rank that owns the atom and the atom's centre row there.
struct Home {
  int rank = -1;
  int row = -1;
  bool operator==(const Home &other) const { return rank == other.rank && row == other.row; }
  bool operator<(const Home &other) const
  {
    return rank < other.rank || (rank == other.rank && row < other.row);
  }
};

/// Rows of features between ranks: [centres] -> [centres, remote rows], and gradients back.
///
/// Messages go straight from owner to user, once per remote atom that has a pair, however many
/// periodic images it shows. Ranks without a common pair do not talk, so that a rank without
/// atoms or pairs takes part by having no peers.
class Exchange {
 public:
  explicit Exchange(MPI_Comm world) : world(world) {}

  /// Collective. `remote` holds the homes of the rows after the centres, sorted by rank.
  void plan(int64_t n_centres, const std::vector<Home> &remote, at::Device device);

  /// Source rows of a layer, differentiable: (centres, width) -> (centres + remote, width).
  at::Tensor operator()(const at::Tensor &owned) const;

  /// The two directions of which the differentiable one is made.
  at::Tensor forward(const at::Tensor &owned) const;
  at::Tensor reverse(const at::Tensor &rows) const;

 private:
  struct Peer {
    int rank;
    int64_t sent, n_sent;            // its slice of the rows that leave
    int64_t received, n_received;    // its slice of the rows that arrive
  };

  void swap(const at::Tensor &outgoing, const at::Tensor &incoming, bool homeward) const;

  MPI_Comm world;
  std::vector<Peer> peers;
  int64_t n_centres = 0, n_sent = 0, n_received = 0;
  at::Tensor rows_sent;    // (n_sent,) centre rows, ordered by receiving rank
};

}    // namespace So3k

#endif
