/* so3k-md: messages of one layer between neighbors, from live weights, for training. MIT. */

#include <memory>
#include <vector>

#include "arguments.h"
#include "filter.h"
#include "heads.h"
#include "knots.h"
#include "messages.h"
#include "threads.h"
#include "twice.h"

#include <torch/library.h>

using at::Tensor;

namespace So3k {
namespace {

  constexpr int64_t LEAST_PAIRS = 256, LEAST_ROWS = 64;    // for which another thread pays
  constexpr int64_t MOST_DEGREES = 8;

  /// Positions among the weights; see AttendWeights in kernels/training.py.
  enum { QUERY = 0, KEY = 2, VALUE = 4, CHI_QUERY = 6, CHI_KEY = 8, FILTERS = 10 };
  /// The same within each of the two filters, each weight followed by its bias.
  enum { RADIAL_HIDDEN = 0, RADIAL_OUT = 2, HIDDEN = 4, OUT = 6, PER_FILTER = 8 };

  template <typename T> class Attend : public DualOperation<Attend<T>> {
    using Self = DualOperation<Attend<T>>;
    using Self::g_outputs;
    using Self::inputs;
    using Self::wanted;
    using Self::weights;
    using Self::weights_wanted;

   public:
    Attend(LayerShape shape, Invariants<T> invariants, Tensor knots, Tensor idx_i, Tensor idx_j,
           double cutoff) :
        shape(std::move(shape)), invariants(std::move(invariants)), basis(std::move(knots)),
        knots(basis.size(0) - 1, cutoff), idx_i(std::move(idx_i)), idx_j(std::move(idx_j))
    {
    }

    /// Δx and Δχ.
    template <bool D> std::vector<Tensor> forward_pass()
    {
      if constexpr (!D) {
        g_outputs.resize(2);
        hidden = weights[FILTERS + HIDDEN].size(1);
        for (int which = 0; which < FILTERS; which += 2)
          turned.push_back(weights[which].transpose(1, 2).contiguous());
        make_table();
      }
      fill_rows<D>();
      fill_filters<D>();
      const auto dx = at::zeros_like(x().v), dchi = at::zeros_like(chi().v);
      const auto messages = messages_of<D>();
      const auto parts = parts_of(n_pairs(), LEAST_PAIRS);
      const PartialSums<T> to_x(dx, parts), to_chi(dchi, parts);
      T *to_w = w.part(D).template data_ptr<T>();
      in_parts(parts, [&](int64_t part) {
        for (auto p = begin(parts, part); p < begin(parts, part + 1); ++p) {
          add_radial<D>(p, to_w + p * 2 * width());
          messages.send(p, to_x.of(part), to_chi.of(part));
        }
      });
      to_x.add();
      to_chi.add();
      return {dx, dchi};
    }

    template <bool D> std::vector<Tensor> backward_pass()
    {
      std::vector<Tensor> found(5 + weights.size());
      receive_all<D>(found);
      for (int net = 0; net < 2; ++net) {
        auto to = hidden_of(g_active.part(D), net);
        at::mm_out(to, columns_of(g_w.part(D), net), weight(net, OUT).t());
      }
      found[1] = at::zeros_like(chi().v);
      filters_adjoint<D>(found);
      if (weights_wanted)
        for (int net = 0; net < 2; ++net)
          found[5 + FILTERS + net * PER_FILTER + OUT] = by_weight<D>(
              active.narrow(1, net * hidden, hidden), g_w.narrow(1, net * width(), width()));
      rows_adjoint<D>(found);
      return found;
    }

   private:
    const DualTensor &x() const { return inputs[0]; }
    const DualTensor &chi() const { return inputs[1]; }
    int64_t width() const { return shape.width; }
    int64_t n_pairs() const { return idx_i.size(0); }
    int64_t begin(int64_t parts, int64_t part) const { return bound(n_pairs(), parts, part); }
    const Tensor &weight(int net, int which) const
    {
      return weights[FILTERS + net * PER_FILTER + which];
    }
    Tensor hidden_of(const Tensor &rows, int net) const
    {
      return rows.narrow(1, net * hidden, hidden);
    }
    Tensor columns_of(const Tensor &rows, int net) const
    {
      return rows.narrow(1, net * width(), width());
    }
    template <bool D> Messages<T, D> messages_of() const
    {
      return {shape,
              idx_i.const_data_ptr<int64_t>(),
              idx_j.const_data_ptr<int64_t>(),
              q,
              k,
              v,
              w,
              inputs[3],
              inputs[4]};
    }

    /// The radial parts of both filters at the knots around all distances.
    void make_table()
    {
      int64_t last = 0;
      first_knot = knots.intervals - 1;
      const Reader<T, false> r(inputs[2]);
      for (int64_t p = 0; p < n_pairs(); ++p) {
        const auto interval = knots.interval(r.at(p));
        first_knot = std::min(first_knot, interval);
        last = std::max(last, interval);
      }
      const auto count = std::max<int64_t>(last + 2 - first_knot, 0);
      const auto rows = basis.narrow(0, first_knot, count).flatten(0, 1);
      table = at::empty({rows.size(0), 2 * width()}, x().v.options());
      for (int net = 0; net < 2; ++net)
        radial[net] = std::make_shared<RadialRows<T>>(
            rows, weight(net, RADIAL_HIDDEN), weight(net, RADIAL_HIDDEN + 1),
            weight(net, RADIAL_OUT), weight(net, RADIAL_OUT + 1) + weight(net, OUT + 1),
            columns_of(table, net));
    }

    /// Queries, keys and values.
    template <bool D> void fill_rows()
    {
      const auto F = width(), n = x().v.size(0);
      for (auto *rows : {&q, &k}) rows->part(D) = at::empty({n, 2 * F}, x().v.options());
      v.part(D) = at::empty({n, F}, x().v.options());
      map_rows<D>(QUERY, shape.heads, q.part(D), 0);
      map_rows<D>(CHI_QUERY, shape.n_degrees(), q.part(D), F);
      map_rows<D>(KEY, shape.heads, k.part(D), 0);
      map_rows<D>(CHI_KEY, shape.n_degrees(), k.part(D), F);
      map_rows<D>(VALUE, shape.heads, v.part(D), 0);
    }
    template <bool D>
    void map_rows(int which, int64_t heads, const Tensor &rows, int64_t column) const
    {
      const auto F = width(), row = rows.size(1);
      const auto &biases = weights[which + 1];
      const T *bias = D || biases.numel() == 0 ? nullptr : biases.template const_data_ptr<T>();
      const T *from = x().part(D).template const_data_ptr<T>();
      T *to = rows.data_ptr<T>() + column;
      in_ranges(rows.size(0), LEAST_ROWS, [&](int64_t first, int64_t last) {
        by_head(from + first * F, F, weights[which].template const_data_ptr<T>(), bias, heads,
                F / heads, to + first * row, row, last - first);
      });
    }

    /// The invariants of χ_i − χ_j of a pair, and their derivatives by Σ_m (χ_i − χ_j)_m².
    template <bool D> void distances(int64_t p, Number<T, D> *value, Number<T, D> *slope) const
    {
      const Reader<T, D> at(chi());
      const auto i = at.from(idx_i.const_data_ptr<int64_t>()[p] * shape.orders());
      const auto j = at.from(idx_j.const_data_ptr<int64_t>()[p] * shape.orders());
      for (int64_t l = 0; l < shape.n_degrees(); ++l) {
        Number<T, D> square{};
        for (auto m = shape.order[l]; m < shape.order[l + 1]; ++m) {
          const auto difference = i.at(m) - j.at(m);
          square = square + difference * difference;
        }
        value[l] = invariants.value(l, square);
        slope[l] = invariants.derivative(l, square);
      }
    }

    /// The spherical parts of the filters.
    template <bool D> void fill_filters()
    {
      const auto P = n_pairs(), L = shape.n_degrees();
      before.part(D) = at::empty({P, 2 * hidden}, x().v.options());
      T *to = before.part(D).template data_ptr<T>();
      in_ranges(P, LEAST_PAIRS, [&](int64_t first, int64_t last) {
        Number<T, D> d[MOST_DEGREES], unused[MOST_DEGREES];
        for (auto p = first; p < last; ++p) {
          distances<D>(p, d, unused);
          for (int net = 0; net < 2; ++net) {
            T *row = to + p * 2 * hidden + net * hidden;
            const T *into = weight(net, HIDDEN).template const_data_ptr<T>();
            const T *bias = weight(net, HIDDEN + 1).template const_data_ptr<T>();
            for (int64_t h = 0; h < hidden; ++h) row[h] = D ? T(0) : bias[h];
            for (int64_t l = 0; l < L; ++l) {
              const T factor = part(d[l]);
#pragma omp simd
              for (int64_t h = 0; h < hidden; ++h) row[h] += factor * into[l * hidden + h];
            }
          }
        }
      });
      if constexpr (!D) share = at::sigmoid(before.v);
      active.part(D) = activated<D>();
      w.part(D) = at::empty({P, 2 * width()}, x().v.options());
      for (int net = 0; net < 2; ++net) {
        auto columns = columns_of(w.part(D), net);
        at::mm_out(columns, hidden_of(active.part(D), net), weight(net, OUT));
      }
    }

    /// silu of the hidden layers.
    template <bool D> Tensor activated() const
    {
      const auto to = at::empty_like(share);
      const Reader<T, D> z(before);
      const T *s = share.template const_data_ptr<T>();
      T *at = to.template data_ptr<T>();
      each<T>(0, to.numel(), [&](int64_t k, auto number) {
        using V = decltype(number);
        const auto s_k = loaded<V>(s + k);
        if constexpr (D)
          store(at + k, V(rise(s_k, value(z.template at<V>(k))) * part(z.template at<V>(k))));
        else
          store(at + k, V(s_k * z.template at<V>(k)));
      });
      return to;
    }

    /// The interval of a pair, and the factors of the rows at its ends.
    template <bool D> int64_t factors(int64_t p, Number<T, D> *value, Number<T, D> *slope) const
    {
      const auto r = Reader<T, D>(inputs[2]).at(p);
      const auto interval = knots.interval(So3k::value(r));
      knots.factors(r, interval, value, slope);
      return (interval - first_knot) * 3 * 2 * width();
    }

    template <bool D> void add_radial(int64_t p, T *to) const
    {
      Number<T, D> value[6], slope[6];
      const auto columns = 2 * width();
      const T *c = table.template const_data_ptr<T>() + factors<D>(p, value, slope);
      T f[6];
      for (int row = 0; row < 6; ++row) f[row] = part(value[row]);
#pragma omp simd
      for (int64_t k = 0; k < columns; ++k)
        to[k] += f[0] * c[k] + f[1] * c[columns + k] + f[2] * c[2 * columns + k] +
            f[3] * c[3 * columns + k] + f[4] * c[4 * columns + k] + f[5] * c[5 * columns + k];
    }

    /// Derivatives by queries, keys, values, filters and geometry.
    template <bool D> void receive_all(std::vector<Tensor> &found)
    {
      const auto P = n_pairs(), columns = 2 * width();
      const bool by_geometry = wanted[2] || wanted[3] || wanted[4];
      for (auto pair :
           {std::make_pair(&g_q, &q), std::make_pair(&g_k, &k), std::make_pair(&g_v, &v)})
        pair.first->part(D) = at::zeros_like(pair.second->v);
      g_w.part(D) = at::empty({P, columns}, x().v.options());
      g_active.part(D) = at::empty({P, 2 * hidden}, x().v.options());
      GeometryGradient<T> geometry{};
      T *by_r = nullptr;
      if (by_geometry) {
        for (int k = 2; k < 5; ++k) found[k] = at::empty_like(inputs[k].v);
        by_r = found[2].template data_ptr<T>();
        geometry = {found[3].template data_ptr<T>(), found[4].template data_ptr<T>()};
      }
      if (weights_wanted) g_table = at::zeros_like(table);
      const auto messages = messages_of<D>();
      const Reader<T, D> g_dx(g_outputs[0]), g_dchi(g_outputs[1]), by_w(g_w);
      const auto parts = parts_of(P, LEAST_PAIRS);
      const PartialSums<T> to_q(g_q.part(D), parts), to_k(g_k.part(D), parts),
          to_v(g_v.part(D), parts);
      const PartialSums<T> to_table(weights_wanted ? g_table : at::empty({0}, table.options()),
                                    parts);
      T *to_w = g_w.part(D).template data_ptr<T>();
      in_parts(parts, [&](int64_t part) {
        const RowsGradient<T> rows = {to_q.of(part), to_k.of(part), to_v.of(part)};
        for (auto p = begin(parts, part); p < begin(parts, part + 1); ++p) {
          messages.receive(p, g_dx, g_dchi, rows, to_w + p * columns, geometry);
          radial_adjoint<D>(p, by_w.from(p * columns), by_r,
                            weights_wanted ? to_table.of(part) : nullptr);
        }
      });
      for (const auto *sums : {&to_q, &to_k, &to_v}) sums->add();
      if (!weights_wanted) return;
      to_table.add();
      for (int net = 0; net < 2; ++net) {
        const auto g = radial[net]->adjoint(columns_of(g_table, net), weight(net, RADIAL_OUT));
        const auto first = 5 + FILTERS + net * PER_FILTER;
        for (int k = 0; k < 4; ++k) found[first + k] = g[k];
        found[first + OUT + 1] = g[3];
      }
    }

    /// The derivative by the distance and, added to those by the table, by the rows around it.
    template <bool D>
    void radial_adjoint(int64_t p, const Reader<T, D> &g_w, T *by_r, T *by_table) const
    {
      Number<T, D> value[6], slope[6];
      const auto columns = 2 * width(), place = factors<D>(p, value, slope);
      const DualTensor rows = {table, table};
      const auto c = Reader<T, false>(rows).from(place);
      if (by_r) {
        Total<T, D> sum;
        each<T>(0, columns, [&](int64_t k, auto number) {
          using V = decltype(number);
          auto rise = slope[0] * c.template at<V>(k);
          for (int row = 1; row < 6; ++row)
            rise = rise + slope[row] * c.template at<V>(row * columns + k);
          sum += g_w.template at<V>(k) * rise;
        });
        by_r[p] = part(sum.total());
      }
      if (by_table)
        for (int row = 0; row < 6; ++row)
          each<T>(0, columns, [&, to = by_table + place + row * columns](int64_t k, auto number) {
            using V = decltype(number);
            add(to + k, value[row] * g_w.template at<V>(k));
          });
    }

    /// Derivatives by χ and by the hidden layers of the spherical parts.
    template <bool D> void filters_adjoint(std::vector<Tensor> &found)
    {
      const auto L = shape.n_degrees();
      const auto parts = parts_of(n_pairs(), LEAST_PAIRS);
      const PartialSums<T> to_chi(found[1], parts);
      const auto sums = at::zeros({2, L + 1, hidden}, x().v.options());
      const PartialSums<T> to_hidden(sums, parts);
      in_parts(parts, [&](int64_t part) {
        for (auto p = begin(parts, part); p < begin(parts, part + 1); ++p)
          filter_adjoint<D>(p, to_chi.of(part), to_hidden.of(part));
      });
      to_chi.add();
      to_hidden.add();
      if (!weights_wanted) return;
      for (int net = 0; net < 2; ++net) {
        const auto first = 5 + FILTERS + net * PER_FILTER;
        found[first + HIDDEN] = sums[net].narrow(0, 0, L);
        found[first + HIDDEN + 1] = sums[net][L];
      }
    }
    template <bool D> void filter_adjoint(int64_t p, T *to_chi, T *to_hidden) const
    {
      using N = Number<T, D>;
      const auto L = shape.n_degrees();
      N d[MOST_DEGREES], slope[MOST_DEGREES], g_d[MOST_DEGREES] = {};
      distances<D>(p, d, slope);
      const T *s = share.template const_data_ptr<T>() + p * 2 * hidden;
      const auto z = Reader<T, D>(before).from(p * 2 * hidden);
      const auto g = Reader<T, D>(g_active).from(p * 2 * hidden);
      for (int net = 0; net < 2; ++net) {
        const DualTensor own = {weight(net, HIDDEN), {}};
        const Reader<T, false> into(own);
        T *by_into = to_hidden + net * (L + 1) * hidden;
        Total<T, D> sums[MOST_DEGREES];
        each<T>(0, hidden, [&](int64_t h, auto number) {
          using V = decltype(number);
          const auto g_z = g.template at<V>(net * hidden + h) *
              rise(loaded<V>(s + net * hidden + h), z.template at<V>(net * hidden + h));
          for (int64_t l = 0; l < L; ++l) {
            sums[l] += g_z * into.template at<V>(l * hidden + h);
            if (weights_wanted) add(by_into + l * hidden + h, d[l] * g_z);
          }
          if (weights_wanted) add(by_into + L * hidden + h, g_z);
        });
        for (int64_t l = 0; l < L; ++l) g_d[l] = g_d[l] + sums[l].total();
      }
      const auto i = idx_i.const_data_ptr<int64_t>()[p] * shape.orders();
      const auto j = idx_j.const_data_ptr<int64_t>()[p] * shape.orders();
      const Reader<T, D> at(chi());
      for (int64_t l = 0; l < L; ++l) {
        const N factor = g_d[l] * slope[l] * T(2);
        for (auto m = shape.order[l]; m < shape.order[l + 1]; ++m) {
          const T change = part(factor * (at.at(i + m) - at.at(j + m)));
          to_chi[i + m] += change;
          to_chi[j + m] -= change;
        }
      }
    }
    /// silu′(z), given sigmoid(z).
    template <typename V> static V rise(const V &s, const V &z) { return s * (1 + z * (1 - s)); }
    template <typename V> static Dual<V> rise(const V &s, const Dual<V> &z)
    {
      return {rise(s, z.v), s * (1 - s) * (2 + z.v * (1 - 2 * s)) * z.d};
    }

    /// Derivatives by the features, and by the maps to queries, keys and values.
    template <bool D> void rows_adjoint(std::vector<Tensor> &found)
    {
      if (wanted[0]) found[0] = at::zeros_like(x().v);
      const auto F = width();
      map_adjoint<D>(QUERY, shape.heads, g_q.narrow(1, 0, F), found);
      map_adjoint<D>(CHI_QUERY, shape.n_degrees(), g_q.narrow(1, F, F), found);
      map_adjoint<D>(KEY, shape.heads, g_k.narrow(1, 0, F), found);
      map_adjoint<D>(CHI_KEY, shape.n_degrees(), g_k.narrow(1, F, F), found);
      map_adjoint<D>(VALUE, shape.heads, g_v, found);
    }
    template <bool D>
    void map_adjoint(int which, int64_t heads, const DualTensor &g,
                     std::vector<Tensor> &found) const
    {
      const auto F = width(), row = g.v.stride(0);
      if (wanted[0]) {
        const auto &transposed = turned[which / 2];
        const T *from = g.part(D).template const_data_ptr<T>();
        T *to = found[0].template data_ptr<T>();
        in_ranges(g.v.size(0), LEAST_ROWS, [&](int64_t first, int64_t last) {
          by_head_adjoint(from + first * row, row, transposed.template const_data_ptr<T>(), heads,
                          F / heads, to + first * F, F, last - first);
        });
      }
      if (!weights_wanted) return;
      const auto head_first = [&](const Tensor &rows) { return rows.unflatten(1, {heads, -1}); };
      const auto left = [&](const Tensor &rows) { return head_first(rows).permute({1, 2, 0}); };
      const auto right = [&](const Tensor &rows) { return head_first(rows).permute({1, 0, 2}); };
      auto &to = found[5 + which];
      if constexpr (D)
        to = at::bmm(left(x().d), right(g.v)).baddbmm_(left(x().v), right(g.d));
      else
        to = at::bmm(left(x().v), right(g.v));
      found[5 + which + 1] = by_bias<D>(g, weights[which + 1]);
    }

    LayerShape shape;
    Invariants<T> invariants;
    Tensor basis;    // (knots, 3, K)
    Knots<T> knots;
    Tensor idx_i, idx_j;
    int64_t hidden = 0, first_knot = 0;
    std::vector<Tensor> turned;      // the matrices of the maps, transposed
    Tensor table, g_table, share;    // (rows, 2F), (rows, 2F), (pairs, 2H): sigmoid
    std::shared_ptr<RadialRows<T>> radial[2];
    DualTensor q, k, v, before, active, w;    // (atoms, …), (pairs, …)
    DualTensor g_q, g_k, g_v, g_w, g_active;
  };

  std::vector<Tensor> attend(const std::vector<Tensor> &inputs, const std::vector<Tensor> &weights,
                             const Tensor &idx_i, const Tensor &idx_j, const Tensor &knots,
                             std::vector<int64_t> degrees, int64_t heads, bool squared,
                             double norm_eps, double cutoff, double scale, double chi_scale)
  {
    const auto type = inputs.at(0).scalar_type();
    require_precision(type);
    LayerShape shape{inputs[0].size(1), heads, degrees, {0}, scale, chi_scale};
    for (const auto degree : degrees) shape.order.push_back(shape.order.back() + 2 * degree + 1);
    const auto made = [&](auto number) -> c10::intrusive_ptr<Operation> {
      using T = decltype(number);
      return c10::make_intrusive<Attend<T>>(shape, Invariants<T>(degrees, squared, norm_eps), knots,
                                            idx_i, idx_j, cutoff);
    };
    return call(type == at::kFloat ? made(float()) : made(double()), inputs, weights);
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  library.def(
      "train_attend(Tensor[] inputs, Tensor[] weights, Tensor idx_i, Tensor idx_j, Tensor knots, "
      "int[] degrees, int heads, bool squared, float norm_eps, float cutoff, float scale, "
      "float chi_scale) -> Tensor[]",
      &So3k::attend);
}
