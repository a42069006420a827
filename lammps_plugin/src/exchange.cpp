/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#include "exchange.h"

#include <torch/csrc/autograd/custom_function.h>

#include <numeric>

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

namespace So3k {

namespace {

  /// Remote rows from their owners; the gradients of remote rows back to them.
  struct Halo : torch::autograd::Function<Halo> {
    static Tensor forward(AutogradContext *context, const Tensor &owned, int64_t exchange)
    {
      context->saved_data["exchange"] = exchange;
      return reinterpret_cast<const Exchange *>(exchange)->forward(owned);
    }

    static tensor_list backward(AutogradContext *context, const tensor_list &gradients)
    {
      const auto exchange = context->saved_data["exchange"].toInt();
      return {reinterpret_cast<const Exchange *>(exchange)->reverse(gradients[0]), Tensor()};
    }
  };

  std::vector<int> offsets(const std::vector<int> &counts)
  {
    std::vector<int> begin(counts.size(), 0);
    std::partial_sum(counts.begin(), counts.end() - 1, begin.begin() + 1);
    return begin;
  }

}    // namespace

void Exchange::plan(int64_t centres, const std::vector<Home> &remote, at::Device device)
{
  int n_ranks;
  MPI_Comm_size(world, &n_ranks);
  std::vector<int> n_wanted(n_ranks, 0), n_asked(n_ranks, 0), wanted;
  for (const auto &home : remote) {
    ++n_wanted[home.rank];
    wanted.push_back(home.row);
  }
  MPI_Alltoall(n_wanted.data(), 1, MPI_INT, n_asked.data(), 1, MPI_INT, world);
  const auto wanted_begin = offsets(n_wanted), asked_begin = offsets(n_asked);
  std::vector<int> asked(asked_begin.back() + n_asked.back());
  MPI_Alltoallv(wanted.data(), n_wanted.data(), wanted_begin.data(), MPI_INT, asked.data(),
                n_asked.data(), asked_begin.data(), MPI_INT, world);

  peers.clear();
  for (int rank = 0; rank < n_ranks; ++rank)
    if (n_asked[rank] || n_wanted[rank])
      peers.push_back({rank, asked_begin[rank], n_asked[rank], wanted_begin[rank], n_wanted[rank]});
  n_centres = centres;
  n_sent = static_cast<int64_t>(asked.size());
  n_received = static_cast<int64_t>(remote.size());
  rows_sent = at::tensor(asked, at::kInt).to(device, at::kLong);
}

/// One message to and from every peer; homeward, what was received leaves and what was sent
/// arrives.
void Exchange::swap(const Tensor &outgoing, const Tensor &incoming, bool homeward) const
{
  const auto row_bytes = outgoing.size(1) * outgoing.element_size();
  MPI_Datatype row;
  MPI_Type_contiguous(static_cast<int>(row_bytes), MPI_BYTE, &row);
  MPI_Type_commit(&row);
  std::vector<MPI_Request> requests(2 * peers.size(), MPI_REQUEST_NULL);
  auto *request = requests.data();
  auto *in = static_cast<char *>(incoming.data_ptr());
  auto *out = static_cast<char *>(outgoing.data_ptr());
  for (const auto &peer : peers) {
    const auto arrives = homeward ? peer.sent : peer.received;
    const auto n_arrives = homeward ? peer.n_sent : peer.n_received;
    MPI_Irecv(in + arrives * row_bytes, n_arrives, row, peer.rank, 0, world, request++);
  }
  for (const auto &peer : peers) {
    const auto leaves = homeward ? peer.received : peer.sent;
    const auto n_leaves = homeward ? peer.n_received : peer.n_sent;
    MPI_Isend(out + leaves * row_bytes, n_leaves, row, peer.rank, 0, world, request++);
  }
  MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
  MPI_Type_free(&row);
}

Tensor Exchange::forward(const Tensor &owned) const
{
  const auto outgoing = owned.index_select(0, rows_sent).cpu().contiguous();
  const auto incoming = at::empty({n_received, owned.size(1)}, outgoing.options());
  swap(outgoing, incoming, false);
  return at::cat({owned, incoming.to(owned.device())});
}

Tensor Exchange::reverse(const Tensor &rows) const
{
  const auto outgoing = rows.narrow(0, n_centres, n_received).cpu().contiguous();
  const auto incoming = at::empty({n_sent, rows.size(1)}, outgoing.options());
  swap(outgoing, incoming, true);
  return rows.narrow(0, 0, n_centres).index_add(0, rows_sent, incoming.to(rows.device()));
}

Tensor Exchange::operator()(const Tensor &owned) const
{
  if (peers.empty()) return owned;    // its own sources: one rank, or all partners far away
  return Halo::apply(owned, reinterpret_cast<int64_t>(this));
}

}    // namespace So3k
