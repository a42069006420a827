/* so3k-md: each pair once, with its distance and harmonics, and their adjoint. MIT. */

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "device.h"
#include "directions.h"
#include "harmonics.h"
#include "operators.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace So3k {
namespace {

  constexpr int64_t TILE = 256;    // pairs whose harmonics fit the first-level caches

  /// Whether a vector v, and not −v, points to the half of space that is kept.
  bool upward(const double *v)
  {
    return v[0] > 0 || (v[0] == 0 && (v[1] > 0 || (v[1] == 0 && v[2] > 0)));
  }

  /// Keeps one of the two directions of a pair, and all pairs whose source is no centre.
  struct Once {
    std::vector<int64_t> kept;
    std::vector<char> back;    // whether the source is a centre too

    Once(const double *vectors, const int64_t *i, const int64_t *j, int64_t n_pairs)
    {
      int64_t rows = 0;
      for (int64_t p = 0; p < n_pairs; ++p) rows = std::max({rows, i[p] + 1, j[p] + 1});
      std::vector<char> is_centre(rows, 0);
      for (int64_t p = 0; p < n_pairs; ++p) is_centre[i[p]] = 1;
      for (int64_t p = 0; p < n_pairs; ++p) {
        const bool both = is_centre[j[p]];
        if (both && (i[p] > j[p] || (i[p] == j[p] && !upward(vectors + 3 * p)))) continue;
        kept.push_back(p);
        back.push_back(both);
      }
    }
  };

  template <typename T>
  void fill(Directions<T> &directions, const double *vectors, const int64_t *kept, int64_t count)
  {
    for (int64_t n = 0; n < count; ++n) {
      const double *v = vectors + 3 * kept[n];
      directions.set(n, static_cast<T>(v[0]), static_cast<T>(v[1]), static_cast<T>(v[2]));
    }
  }

  template <typename T>
  Harmonics<T> harmonics_of(const std::vector<Tensor> &steps, const std::vector<int64_t> &degrees)
  {
    std::vector<const T *> weights;
    for (const auto &step : steps) weights.push_back(step.const_data_ptr<T>());
    return Harmonics<T>(weights, degrees, TILE);
  }

  template <typename T>
  void forward_of(const Tensor &vectors, const Tensor &kept, const std::vector<Tensor> &steps,
                  const std::vector<int64_t> &degrees, double direction, Tensor &r, Tensor &ylm)
  {
    auto harmonics = harmonics_of<T>(steps, degrees);
    const auto n_pairs = kept.size(0), orders = ylm.size(1);
    Directions<T> directions(TILE, static_cast<T>(direction));
    T *length = r.data_ptr<T>(), *y = ylm.data_ptr<T>();
    for (int64_t first = 0; first < n_pairs; first += TILE) {
      const auto count = std::min(TILE, n_pairs - first);
      fill(directions, vectors.const_data_ptr<double>(), kept.const_data_ptr<int64_t>() + first,
           count);
      for (int64_t n = 0; n < count; ++n) length[first + n] = directions.length(n);
      harmonics.evaluate(directions.unit());
      for (int64_t m = 0; m < orders; ++m) {
        const T *row = harmonics.value(m);
        for (int64_t n = 0; n < count; ++n) y[(first + n) * orders + m] = row[n];
      }
    }
  }

  template <typename T>
  void backward_of(const Tensor &vectors, const Tensor &kept, const std::vector<Tensor> &steps,
                   const std::vector<int64_t> &degrees, double direction, const Tensor &g_r,
                   const Tensor &g_ylm, Tensor &g_vectors)
  {
    auto harmonics = harmonics_of<T>(steps, degrees);
    const auto n_pairs = kept.size(0), orders = g_ylm.size(1);
    Directions<T> directions(TILE, static_cast<T>(direction));
    std::vector<T> g_unit(3 * TILE);
    const T *by_r = g_r.const_data_ptr<T>(), *by_y = g_ylm.const_data_ptr<T>();
    const auto *rows = kept.const_data_ptr<int64_t>();
    auto *g = g_vectors.data_ptr<double>();
    for (int64_t first = 0; first < n_pairs; first += TILE) {
      const auto count = std::min(TILE, n_pairs - first);
      fill(directions, vectors.const_data_ptr<double>(), rows + first, count);
      harmonics.evaluate(directions.unit());
      harmonics.clear_gradient();
      for (int64_t m = 0; m < orders; ++m) {
        T *row = harmonics.gradient(m);
        for (int64_t n = 0; n < count; ++n) row[n] = by_y[(first + n) * orders + m];
      }
      harmonics.adjoint(directions.unit(), g_unit.data());
      for (int64_t n = 0; n < count; ++n) {
        T derivative[3];
        directions.gradient(n, g_unit.data(), by_r[first + n], derivative);
        for (int x = 0; x < 3; ++x) g[3 * rows[first + n] + x] = static_cast<double>(derivative[x]);
      }
    }
  }

  class Geometry : public torch::autograd::Function<Geometry> {
   public:
    static variable_list forward(AutogradContext *context, const Tensor &vectors,
                                 const Tensor &idx_i, const Tensor &idx_j,
                                 const std::vector<Tensor> &steps,
                                 const std::vector<int64_t> &degrees, double direction)
    {
      const auto type = steps.at(0).scalar_type();
      require_cpu(vectors);
      TORCH_CHECK(type == at::kFloat || type == at::kDouble,
                  "[so3k] the kernels work in float32 and float64, not in ", type,
                  ": load the model in one of these");
      const auto v = vectors.to(at::kDouble).contiguous();
      const auto i = idx_i.contiguous(), j = idx_j.contiguous();
      const Once once(v.const_data_ptr<double>(), i.const_data_ptr<int64_t>(),
                      j.const_data_ptr<int64_t>(), i.size(0));
      const auto n_pairs = static_cast<int64_t>(once.kept.size());
      auto kept = at::empty({n_pairs}, i.options());
      auto back = at::empty({n_pairs}, i.options().dtype(at::kBool));
      std::copy(once.kept.begin(), once.kept.end(), kept.data_ptr<int64_t>());
      std::copy(once.back.begin(), once.back.end(), back.data_ptr<bool>());
      int64_t orders = 0;
      for (const auto degree : degrees) orders += 2 * degree + 1;
      auto r = at::empty({n_pairs}, steps[0].options());
      auto ylm = at::empty({n_pairs, orders}, steps[0].options());
      if (type == at::kFloat)
        forward_of<float>(v, kept, steps, degrees, direction, r, ylm);
      else
        forward_of<double>(v, kept, steps, degrees, direction, r, ylm);
      const auto i_kept = i.index_select(0, kept), j_kept = j.index_select(0, kept);
      variable_list saved = {v, kept};
      saved.insert(saved.end(), steps.begin(), steps.end());
      context->save_for_backward(saved);
      context->saved_data["degrees"] = degrees;
      context->saved_data["direction"] = direction;
      context->saved_data["type"] = static_cast<int64_t>(vectors.scalar_type());
      context->mark_non_differentiable({i_kept, j_kept, back});
      return {r, ylm, i_kept, j_kept, back};
    }

    static variable_list backward(AutogradContext *context, const variable_list &gradients)
    {
      const auto saved = context->get_saved_variables();
      const std::vector<Tensor> steps(saved.begin() + 2, saved.end());
      const auto degrees = context->saved_data["degrees"].toIntVector();
      const auto direction = context->saved_data["direction"].toDouble();
      int64_t orders = 0;
      for (const auto degree : degrees) orders += 2 * degree + 1;
      const auto filled = [&](const Tensor &derivative, at::IntArrayRef shape) {
        return derivative.defined() ? derivative.contiguous()
                                    : at::zeros(shape, steps[0].options());
      };
      const auto n_pairs = saved[1].size(0);
      const auto g_r = filled(gradients[0], {n_pairs}),
                 g_ylm = filled(gradients[1], {n_pairs, orders});
      auto g = at::zeros_like(saved[0]);
      if (g_r.scalar_type() == at::kFloat)
        backward_of<float>(saved[0], saved[1], steps, degrees, direction, g_r, g_ylm, g);
      else
        backward_of<double>(saved[0], saved[1], steps, degrees, direction, g_r, g_ylm, g);
      const auto type = static_cast<at::ScalarType>(context->saved_data["type"].toInt());
      const Tensor none;
      return {g.to(type), none, none, none, none, none};
    }
  };

  std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>
  geometry(const Tensor &vectors, const Tensor &idx_i, const Tensor &idx_j,
           std::vector<Tensor> steps, std::vector<int64_t> degrees, double direction)
  {
    const auto found = Geometry::apply(vectors, idx_i, idx_j, steps, degrees, direction);
    return {found[0], found[1], found[2], found[3], found[4]};
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  library.def(So3k::operators::GEOMETRY, So3k::geometry);
}
