/* so3k-md: distances, harmonics and cutoff function of pairs, and the first χ, for training. MIT.
 */

#include <algorithm>
#include <vector>

#include "arguments.h"
#include "cutoff.h"
#include "once.h"
#include "threads.h"
#include "twice.h"

#include <torch/library.h>

using at::Tensor;

namespace So3k {
namespace {

  constexpr int64_t LEAST_PAIRS = 1024;                          // for which another thread pays
  constexpr int64_t MOST_COMPONENTS = 25, MOST_PRODUCTS = 21;    // degrees 0 to 4

  /// Degrees, cutoff function and direction of the harmonics.
  struct Shape {
    std::vector<Tensor> steps;
    std::vector<int64_t> degrees,
        order;    // order: where the components of each degree begin, and the end
    double direction, cutoff;
    int64_t p;

    int64_t width() const { return order.back(); }
  };

  /// Harmonics of the degrees 0 to the last in numbers N of directions u, each degree from the one
  /// below.
  template <typename T, typename N> class Tower {
   public:
    explicit Tower(const Shape &shape) : last(static_cast<int64_t>(shape.steps.size()))
    {
      for (const auto &step : shape.steps) steps.push_back(step.const_data_ptr<T>());
    }

    void evaluate(const N *u)
    {
      y[0] = y[0] * T(0) + T(0.28209479177387814347);    // 1 / √(4π)
      for (int64_t l = 0; l < last; ++l) {
        const auto n = 2 * l + 1;
        N products[MOST_PRODUCTS];
        for (int64_t m = 0; m < n; ++m)
          for (int x = 0; x < 3; ++x) products[3 * m + x] = y[l * l + m] * u[x];
        for (int64_t row = 0; row < n + 2; ++row) {
          N sum = products[0] * steps[l][row * 3 * n];
          for (int64_t k = 1; k < 3 * n; ++k) sum = sum + products[k] * steps[l][row * 3 * n + k];
          y[(l + 1) * (l + 1) + row] = sum;
        }
      }
    }

    /// Σ g_y ∂y/∂u, added to g_u; changes g_y of lower degrees.
    void adjoint(const N *u, N *g_y, N *g_u) const
    {
      for (int64_t l = last - 1; l >= 0; --l) {
        const auto n = 2 * l + 1;
        const N *above = g_y + (l + 1) * (l + 1);
        for (int64_t m = 0; m < n; ++m)
          for (int x = 0; x < 3; ++x) {
            const T *column = steps[l] + 3 * m + x;
            N g = above[0] * column[0];
            for (int64_t row = 1; row < n + 2; ++row) g = g + above[row] * column[row * 3 * n];
            g_u[x] = g_u[x] + g * y[l * l + m];
            g_y[l * l + m] = g_y[l * l + m] + g * u[x];
          }
      }
    }

    N y[MOST_COMPONENTS] = {};

   private:
    int64_t last;
    std::vector<const T *> steps;
  };

  template <typename T> class Geometry : public DualOperation<Geometry<T>> {
    using Self = DualOperation<Geometry<T>>;
    using Self::g_outputs;
    using Self::inputs;

   public:
    Geometry(Shape shape, Tensor kept) : shape(std::move(shape)), kept(std::move(kept)) {}

    /// r, φ and Y.
    template <bool D> std::vector<Tensor> forward_pass()
    {
      const auto options = shape.steps[0].options();
      r.part(D) = at::empty({n_pairs()}, options);
      cut.part(D) = at::empty({n_pairs()}, options);
      ylm.part(D) = at::empty({n_pairs(), shape.width()}, options);
      in_ranges(n_pairs(), LEAST_PAIRS, [&](int64_t begin, int64_t end) {
        Tower<T, Number<V, D>> tower(shape);
        for (auto first = begin; first < end; first += WIDTH)
          evaluate<D>(tower, first, std::min(first + WIDTH, end));
      });
      if constexpr (!D) g_outputs.resize(3);
      return {r.part(D), cut.part(D), ylm.part(D)};
    }

    template <bool D> std::vector<Tensor> backward_pass()
    {
      const auto g = at::zeros_like(inputs[0].v);
      in_ranges(n_pairs(), LEAST_PAIRS, [&](int64_t begin, int64_t end) {
        Tower<T, Number<V, D>> tower(shape);
        for (auto first = begin; first < end; first += WIDTH)
          adjoint<D>(tower, first, std::min(first + WIDTH, end), g.template data_ptr<double>());
      });
      return {g};
    }

   private:
    using V = Lane<T>;
    static constexpr int64_t WIDTH = Lanes<T>::COUNT;    // pairs at once

    int64_t n_pairs() const { return kept.size(0); }
    Cutoff<T> function() const { return {static_cast<T>(shape.cutoff), shape.p}; }

    /// Vectors of some pairs, a register for each coordinate; of (1, 0, 0) where there is no pair.
    template <bool D> void vectors_of(int64_t first, int64_t last, Number<V, D> *to) const
    {
      const Reader<double, D> vectors(inputs[0]);
      const auto *rows = kept.const_data_ptr<int64_t>();
      for (int x = 0; x < 3; ++x) {
        to[x] = Number<V, D>{};
        if (x == 0) to[x] = to[x] + T(1);
        for (auto n = first; n < last; ++n) set<D>(to[x], n - first, vectors.at(3 * rows[n] + x));
      }
    }
    template <bool D>
    static void set(Number<V, D> &to, int64_t lane, const Number<double, D> &number)
    {
      if constexpr (D) {
        to.v[lane] = static_cast<T>(number.v);
        to.d[lane] = static_cast<T>(number.d);
      } else {
        to[lane] = static_cast<T>(number);
      }
    }

    /// Distance and, times the sign of the direction, unit vector of some pairs.
    template <typename N> N units(const N *v, N *u) const
    {
      // a smallest distance keeps atoms at the same position finite
      const N length = sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2] + T(1e-24));
      for (int x = 0; x < 3; ++x) u[x] = v[x] * static_cast<T>(shape.direction) / length;
      return length;
    }

    template <bool D> void evaluate(Tower<T, Number<V, D>> &tower, int64_t first, int64_t last)
    {
      Number<V, D> v[3], u[3];
      vectors_of<D>(first, last, v);
      const auto length = units(v, u);
      tower.evaluate(u);
      T *to_r = r.part(D).template data_ptr<T>(), *to_cut = cut.part(D).template data_ptr<T>();
      T *to_y = ylm.part(D).template data_ptr<T>();
      for (auto n = first; n < last; ++n) to_r[n] = part(length)[n - first];
      for (auto n = first; n < last; ++n) {
        Number<T, D> phi, slope;
        function()(Reader<T, D>(r).at(n), phi, slope);
        to_cut[n] = part(phi);
      }
      for (std::size_t k = 0; k < shape.degrees.size(); ++k)
        for (int64_t m = 0; m < 2 * shape.degrees[k] + 1; ++m) {
          const V row = part(tower.y[shape.degrees[k] * shape.degrees[k] + m]);
          for (auto n = first; n < last; ++n)
            to_y[n * shape.width() + shape.order[k] + m] = row[n - first];
        }
    }

    template <bool D>
    void adjoint(Tower<T, Number<V, D>> &tower, int64_t first, int64_t last, double *g) const
    {
      using N = Number<V, D>;
      N v[3], u[3], g_y[MOST_COMPONENTS] = {}, g_u[3] = {}, g_length{};
      vectors_of<D>(first, last, v);
      const N length = units(v, u);
      tower.evaluate(u);
      const Reader<T, D> by_r(g_outputs[0]), by_cut(g_outputs[1]), by_y(g_outputs[2]), at_r(r);
      for (auto n = first; n < last; ++n) {
        Number<T, D> phi, slope;
        function()(at_r.at(n), phi, slope);
        set_lane<D>(g_length, n - first, by_r.at(n) + by_cut.at(n) * slope);
        for (std::size_t k = 0; k < shape.degrees.size(); ++k)
          for (int64_t m = 0; m < 2 * shape.degrees[k] + 1; ++m)
            set_lane<D>(g_y[shape.degrees[k] * shape.degrees[k] + m], n - first,
                        by_y.at(n * shape.width() + shape.order[k] + m));
      }
      tower.adjoint(u, g_y, g_u);
      const T sign = static_cast<T>(shape.direction);
      N along = g_u[0] * u[0] + g_u[1] * u[1] + g_u[2] * u[2];
      const auto *rows = kept.const_data_ptr<int64_t>();
      for (int x = 0; x < 3; ++x) {
        const N found = (g_u[x] - along * u[x]) * sign / length + g_length * u[x] * sign;
        for (auto n = first; n < last; ++n) g[3 * rows[n] + x] = part(found)[n - first];
      }
    }
    template <bool D>
    static void set_lane(Number<V, D> &to, int64_t lane, const Number<T, D> &number)
    {
      if constexpr (D) {
        to.v[lane] = number.v;
        to.d[lane] = number.d;
      } else {
        to[lane] = number;
      }
    }

    Shape shape;
    Tensor kept;
    DualTensor r, cut, ylm;
  };

  /// χ_i = Σ_j φ Y / √(C² + ε²), C = Σ_j φ, from φ and Y of pairs (i, j) and (j, i).
  template <typename T> class FirstChi : public DualOperation<FirstChi<T>> {
    using Self = DualOperation<FirstChi<T>>;
    using Self::g_outputs;
    using Self::inputs;

   public:
    FirstChi(std::vector<T> sign, double norm_eps, int64_t n_atoms, Tensor idx_i, Tensor idx_j) :
        sign(std::move(sign)), floor(static_cast<T>(norm_eps * norm_eps + 1e-30)), n_atoms(n_atoms),
        idx_i(std::move(idx_i)), idx_j(std::move(idx_j))
    {
    }

    template <bool D> std::vector<Tensor> forward_pass()
    {
      if constexpr (!D) g_outputs.resize(1);
      const auto W = width();
      const auto &cut = inputs[0], &ylm = inputs[1];
      total.part(D) = at::zeros({n_atoms, W}, cut.v.options());
      weight.part(D) = at::zeros({n_atoms}, cut.v.options());
      T *sum = total.part(D).template data_ptr<T>(), *c = weight.part(D).template data_ptr<T>();
      const Reader<T, D> phi(cut), y(ylm);
      const auto *i = idx_i.const_data_ptr<int64_t>(), *j = idx_j.const_data_ptr<int64_t>();
      for (int64_t n = 0; n < n_pairs(); ++n) {
        add(c + i[n], phi.at(n));
        add(c + j[n], phi.at(n));
        for (int64_t m = 0; m < W; ++m) {
          const auto share = phi.at(n) * y.at(n * W + m);
          add(sum + i[n] * W + m, share);
          add(sum + j[n] * W + m, share * sign[m]);
        }
      }
      const auto chi = at::empty_like(total.v);
      T *to = chi.template data_ptr<T>();
      const Reader<T, D> sums(total), weights(weight);
      for (int64_t a = 0; a < n_atoms; ++a) {
        const auto norm = sqrt(weights.at(a) * weights.at(a) + floor);
        for (int64_t m = 0; m < W; ++m) to[a * W + m] = part(sums.at(a * W + m) / norm);
      }
      return {chi};
    }

    template <bool D> std::vector<Tensor> backward_pass()
    {
      const auto W = width();
      const auto &cut = inputs[0], &ylm = inputs[1];
      g_total.part(D) = at::empty_like(total.v);
      g_weight.part(D) = at::empty_like(weight.v);
      T *by_total = g_total.part(D).template data_ptr<T>();
      T *by_weight = g_weight.part(D).template data_ptr<T>();
      const Reader<T, D> g_chi(g_outputs[0]), sums(total), weights(weight);
      for (int64_t a = 0; a < n_atoms; ++a) {
        const auto c = weights.at(a), square = c * c + floor, per = T(1) / sqrt(square);
        auto along = g_chi.at(a * W) * sums.at(a * W);
        for (int64_t m = 1; m < W; ++m) along = along + g_chi.at(a * W + m) * sums.at(a * W + m);
        for (int64_t m = 0; m < W; ++m) by_total[a * W + m] = part(g_chi.at(a * W + m) * per);
        by_weight[a] = part(along * c * per * T(-1) / square);
      }
      const auto g_cut = at::zeros_like(cut.v), g_ylm = at::zeros_like(ylm.v);
      T *by_cut = g_cut.template data_ptr<T>(), *by_y = g_ylm.template data_ptr<T>();
      const Reader<T, D> g_sum(g_total), g_c(g_weight), phi(cut), y(ylm);
      const auto *i = idx_i.const_data_ptr<int64_t>(), *j = idx_j.const_data_ptr<int64_t>();
      for (int64_t n = 0; n < n_pairs(); ++n) {
        add(by_cut + n, g_c.at(i[n]) + g_c.at(j[n]));
        for (int64_t m = 0; m < W; ++m) {
          const auto share = g_sum.at(i[n] * W + m) + g_sum.at(j[n] * W + m) * sign[m];
          add(by_cut + n, share * y.at(n * W + m));
          add(by_y + n * W + m, share * phi.at(n));
        }
      }
      return {g_cut, g_ylm};
    }

   private:
    int64_t n_pairs() const { return idx_i.size(0); }
    int64_t width() const { return static_cast<int64_t>(sign.size()); }

    std::vector<T> sign;    // (−1)^l of each component: the harmonics of the opposite direction
    T floor;
    int64_t n_atoms;
    Tensor idx_i, idx_j;
    DualTensor total, weight, g_total, g_weight;
  };

  /// The rows of the pairs that are kept, their centres and their sources.
  std::vector<Tensor> pairs(const Tensor &vectors, const Tensor &idx_i, const Tensor &idx_j)
  {
    const auto at_pairs = vectors.to(at::kDouble).contiguous();
    const Once once(at_pairs.const_data_ptr<double>(), idx_i.const_data_ptr<int64_t>(),
                    idx_j.const_data_ptr<int64_t>(), idx_i.size(0));
    const auto n = static_cast<int64_t>(once.kept.size());
    TORCH_CHECK(2 * n == idx_i.size(0) &&
                    std::all_of(once.back.begin(), once.back.end(), [](char both) { return both; }),
                "[so3k] the kernels for training need each pair in both directions, and ", n,
                " of ", idx_i.size(0), " are in one");
    const auto kept = at::empty({n}, idx_i.options());
    std::copy(once.kept.begin(), once.kept.end(), kept.data_ptr<int64_t>());
    return {kept, idx_i.index_select(0, kept), idx_j.index_select(0, kept)};
  }

  std::vector<Tensor> geometry(const Tensor &vectors, const Tensor &kept,
                               const std::vector<Tensor> &steps, std::vector<int64_t> degrees,
                               double direction, double cutoff, int64_t p)
  {
    const auto type = steps.at(0).scalar_type();
    require_precision(type);
    Shape shape{steps, std::move(degrees), {0}, direction, cutoff, p};
    for (const auto degree : shape.degrees)
      shape.order.push_back(shape.order.back() + 2 * degree + 1);
    const auto made = [&](auto number) -> c10::intrusive_ptr<Operation> {
      return c10::make_intrusive<Geometry<decltype(number)>>(shape, kept);
    };
    return call(type == at::kFloat ? made(float()) : made(double()), {vectors}, {});
  }

  Tensor first_chi(const Tensor &cut, const Tensor &ylm, const Tensor &idx_i, const Tensor &idx_j,
                   const std::vector<int64_t> &degrees, double norm_eps, int64_t n_atoms)
  {
    const auto made = [&](auto number) -> c10::intrusive_ptr<Operation> {
      using T = decltype(number);
      std::vector<T> sign;
      for (const auto degree : degrees)
        sign.insert(sign.end(), 2 * degree + 1, degree % 2 ? T(-1) : T(1));
      return c10::make_intrusive<FirstChi<T>>(sign, norm_eps, n_atoms, idx_i, idx_j);
    };
    return call(cut.scalar_type() == at::kFloat ? made(float()) : made(double()), {cut, ylm}, {})
        .at(0);
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  library.def("train_pairs(Tensor vectors, Tensor idx_i, Tensor idx_j) -> Tensor[]", &So3k::pairs);
  library.def(
      "train_geometry(Tensor vectors, Tensor kept, Tensor[] steps, int[] degrees, float direction, "
      "float cutoff, int p) -> Tensor[]",
      &So3k::geometry);
  library.def("train_first_chi(Tensor cut, Tensor ylm, Tensor idx_i, Tensor idx_j, int[] degrees, "
              "float norm_eps, int n_atoms) -> Tensor",
              &So3k::first_chi);
}
