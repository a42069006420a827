/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#include "exchange.h"

#include <torch/csrc/autograd/custom_function.h>

#include <numeric>

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

namespace So3k {

namespace {

  /// Sends parcels through several links; backward sends all their adjoints in the same order.
  struct Delivery : torch::autograd::Function<Delivery> {
    static tensor_list forward(AutogradContext *context, const at::TensorList &rows,
                               const std::vector<const Link *> &links)
    {
      std::vector<int64_t> addresses;
      tensor_list arrived;
      for (size_t k = 0; k < links.size(); ++k) {
        addresses.push_back(reinterpret_cast<int64_t>(links[k]));
        arrived.push_back(links[k]->forward(rows[k]));
      }
      context->saved_data["links"] = addresses;
      return arrived;
    }

    static tensor_list backward(AutogradContext *context, const tensor_list &gradients)
    {
      const auto addresses = context->saved_data["links"].toIntVector();
      tensor_list sent(addresses.size());
      // rows without gradient here have none on the other ranks, which do not wait for it
      for (size_t k = 0; k < addresses.size(); ++k)
        if (context->needs_input_grad(k))
          sent[k] = reinterpret_cast<const Link *>(addresses[k])->adjoint(gradients[k]);
      sent.emplace_back();    // the links have no gradient
      return sent;
    }
  };

  std::vector<int> offsets(const std::vector<int> &counts)
  {
    std::vector<int> begin(counts.size(), 0);
    std::partial_sum(counts.begin(), counts.end() - 1, begin.begin() + 1);
    return begin;
  }

}    // namespace

std::vector<std::vector<int64_t>> all_to_all(const std::vector<std::vector<int64_t>> &outgoing,
                                             MPI_Comm world)
{
  const auto n_ranks = outgoing.size();
  std::vector<int> n_out, n_in(n_ranks);
  std::vector<int64_t> out;
  for (const auto &values : outgoing) {
    n_out.push_back(static_cast<int>(values.size()));
    out.insert(out.end(), values.begin(), values.end());
  }
  MPI_Alltoall(n_out.data(), 1, MPI_INT, n_in.data(), 1, MPI_INT, world);
  const auto out_begin = offsets(n_out), in_begin = offsets(n_in);
  std::vector<int64_t> in(in_begin.back() + n_in.back());
  MPI_Alltoallv(out.data(), n_out.data(), out_begin.data(), MPI_INT64_T, in.data(), n_in.data(),
                in_begin.data(), MPI_INT64_T, world);
  std::vector<std::vector<int64_t>> incoming;
  for (size_t rank = 0; rank < n_ranks; ++rank) {
    const auto first = in.begin() + in_begin[rank];
    incoming.emplace_back(first, first + n_in[rank]);
  }
  return incoming;
}

void Exchange::plan(int64_t n_rows, const std::vector<Location> &remote, at::Device device)
{
  int n_ranks;
  MPI_Comm_size(world, &n_ranks);
  std::vector<std::vector<int64_t>> wanted(n_ranks);
  for (const auto &location : remote) wanted[location.rank].push_back(location.row);
  const auto asked = all_to_all(wanted, world);

  peers.clear();
  n_owned = n_rows;
  n_received = 0;
  std::vector<int64_t> sent;
  for (int rank = 0; rank < n_ranks; ++rank) {
    const auto n_asked = static_cast<int64_t>(asked[rank].size());
    const auto n_wanted = static_cast<int64_t>(wanted[rank].size());
    if (n_asked || n_wanted)
      peers.push_back({rank, static_cast<int64_t>(sent.size()), n_asked, n_received, n_wanted});
    sent.insert(sent.end(), asked[rank].begin(), asked[rank].end());
    n_received += n_wanted;
  }
  n_sent = static_cast<int64_t>(sent.size());
  rows_sent = at::tensor(sent, at::kLong).to(device);
}

/// One message to and from each peer. With `reverse`, rows that were received are
/// sent back to the ranks that own them.
void Exchange::swap(const Tensor &outgoing, const Tensor &incoming, bool reverse) const
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
    const auto arrives = reverse ? peer.sent : peer.received;
    const auto n_arrives = reverse ? peer.n_sent : peer.n_received;
    MPI_Irecv(in + arrives * row_bytes, n_arrives, row, peer.rank, 0, world, request++);
  }
  for (const auto &peer : peers) {
    const auto leaves = reverse ? peer.received : peer.sent;
    const auto n_leaves = reverse ? peer.n_received : peer.n_sent;
    MPI_Isend(out + leaves * row_bytes, n_leaves, row, peer.rank, 0, world, request++);
  }
  MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
  MPI_Type_free(&row);
}

Tensor Exchange::forward(const Tensor &owned) const
{
  if (!busy()) return owned;
  const auto outgoing = owned.index_select(0, rows_sent).cpu().contiguous();
  const auto incoming = at::empty({n_received, owned.size(1)}, outgoing.options());
  swap(outgoing, incoming, false);
  return at::cat({owned, incoming.to(owned.device())});
}

/// The remote rows, on the rank that owns them, in the order of `rows_sent`.
Tensor Exchange::return_rows(const Tensor &rows) const
{
  const auto outgoing = rows.narrow(0, n_owned, n_received).cpu().contiguous();
  const auto incoming = at::empty({n_sent, rows.size(1)}, outgoing.options());
  swap(outgoing, incoming, true);
  return incoming.to(rows.device());
}

Tensor Exchange::adjoint(const Tensor &rows) const
{
  if (!busy()) return rows;
  return rows.narrow(0, 0, n_owned).index_add(0, rows_sent, return_rows(rows));
}

Tensor Exchange::largest(const Tensor &rows) const
{
  return rows.narrow(0, 0, n_owned).index_reduce(0, rows_sent, return_rows(rows), "amax");
}

std::vector<Tensor> deliver(const std::vector<Parcel> &parcels)
{
  std::vector<const Link *> links;
  tensor_list arrived, moving;
  for (const auto &[link, rows] : parcels) {
    arrived.push_back(rows);
    if (!link->busy()) continue;    // one rank, or no rows in common with other ranks
    links.push_back(link);
    moving.push_back(rows);
  }
  if (moving.empty()) return arrived;
  const at::TensorList list(moving);
  const auto moved = Delivery::apply(list, links);
  for (size_t k = 0, next = 0; k < parcels.size(); ++k)
    if (parcels[k].link->busy()) arrived[k] = moved[next++];
  return arrived;
}

}    // namespace So3k
