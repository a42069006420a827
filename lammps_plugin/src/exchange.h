/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#ifndef SO3K_EXCHANGE_H
#define SO3K_EXCHANGE_H

#include <ATen/ATen.h>
#include <mpi.h>
#include <vector>

namespace So3k {

/// The location of a row of the graph: the rank that owns the atom, and the atom's centre row
/// there.
struct Location {
  int rank = -1;
  int row = -1;
  bool operator==(const Location &other) const { return rank == other.rank && row == other.row; }
  bool operator<(const Location &other) const
  {
    return rank < other.rank || (rank == other.rank && row < other.row);
  }
};

/// A linear map of rows that needs other ranks, and its adjoint, which gradients take.
class Link {
 public:
  virtual ~Link() = default;
  /// Whether this rank exchanges rows with another one; if not, the map is the identity.
  virtual bool busy() const = 0;
  virtual at::Tensor forward(const at::Tensor &rows) const = 0;
  virtual at::Tensor adjoint(const at::Tensor &gradient) const = 0;
};

/// Rows between ranks: [owned] -> [owned, remote], and their gradients back.
///
/// Messages go directly from owner to user, once per remote row, for any number of periodic images
/// of an atom. Ranks without a common row exchange no messages, so that a rank without atoms or
/// pairs simply has no peers.
class Exchange : public Link {
 public:
  explicit Exchange(MPI_Comm world) : world(world) {}

  /// Collective. `remote` holds the locations of the rows after the owned ones, sorted by rank.
  void plan(int64_t n_owned, const std::vector<Location> &remote, at::Device device);

  bool busy() const override { return !peers.empty(); }
  /// (owned, width) -> (owned + remote, width).
  at::Tensor forward(const at::Tensor &owned) const override;
  /// Adds what the other ranks have for the owned rows: (owned + remote, width) -> (owned, width).
  at::Tensor adjoint(const at::Tensor &rows) const override;
  /// The largest value of each owned row on any rank, shapes as in `adjoint`.
  at::Tensor largest(const at::Tensor &rows) const;

  int64_t n_remote() const { return n_received; }
  int64_t n_rows() const { return n_owned + n_received; }

 private:
  struct Peer {
    int rank;
    int64_t sent, n_sent;            // its slice of the rows that leave
    int64_t received, n_received;    // its slice of the rows that arrive
  };

  void swap(const at::Tensor &outgoing, const at::Tensor &incoming, bool reverse) const;
  at::Tensor return_rows(const at::Tensor &rows) const;

  MPI_Comm world;
  std::vector<Peer> peers;
  int64_t n_owned = 0, n_sent = 0, n_received = 0;
  at::Tensor rows_sent;    // (n_sent,) owned rows, ordered by receiving rank
};

/// Rows, and the link through which they are sent.
struct Parcel {
  const Link *link;
  at::Tensor rows;
};

/// The rows that arrive, differentiable. All parcels of one call are one node of autograd, so that
/// the messages of its backward pass have the same order on all ranks.
std::vector<at::Tensor> deliver(const std::vector<Parcel> &parcels);

/// Collective: sends outgoing[rank] to each rank; the result at [rank] came from that rank.
std::vector<std::vector<int64_t>> all_to_all(const std::vector<std::vector<int64_t>> &outgoing,
                                             MPI_Comm world);

}    // namespace So3k

#endif
