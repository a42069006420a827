/* so3k-md: messages of one layer between neighbours, pair by pair in the cache, with their adjoint. MIT. */

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <vector>

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// pairs whose filters are made at once: 256 rows of a few hundred columns stay in the second cache
constexpr int64_t TILE = 256;

/// As many numbers as one register of this processor holds.
template <typename T> struct Lanes {
#if defined(__AVX512F__)
  static constexpr int64_t BYTES = 64;
#elif defined(__AVX__)
  static constexpr int64_t BYTES = 32;
#else
  static constexpr int64_t BYTES = 16;
#endif
  typedef T type __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias));
  static constexpr int64_t COUNT = BYTES / sizeof(T);
};

/// c = a b of ROWS rows and COLUMNS registers, which stay in registers while k runs.
template <typename T, int ROWS, int COLUMNS>
inline void block(const T *a, int64_t a_row, const T *b, int64_t b_row, int64_t n_k, T *c, int64_t c_row)
{
  using Lane = typename Lanes<T>::type;
  constexpr int64_t N = Lanes<T>::COUNT;
  Lane sum[ROWS][COLUMNS] = {};
  for (int64_t k = 0; k < n_k; ++k)
    for (int column = 0; column < COLUMNS; ++column) {
      const Lane row = *reinterpret_cast<const Lane *>(b + k * b_row + column * N);
      for (int i = 0; i < ROWS; ++i) sum[i][column] += a[i * a_row + k] * row;
    }
  for (int i = 0; i < ROWS; ++i)
    for (int column = 0; column < COLUMNS; ++column)
      *reinterpret_cast<Lane *>(c + i * c_row + column * N) = sum[i][column];
}

/// Some rows of c = a b, in blocks of columns as wide as there are.
template <typename T, int ROWS>
void some_rows(const T *a, int64_t a_row, const T *b, int64_t b_row, int64_t n_k, T *c, int64_t c_row,
               int64_t n_columns)
{
  constexpr int64_t N = Lanes<T>::COUNT;
  int64_t column = 0;
  for (; column + 4 * N <= n_columns; column += 4 * N)
    block<T, ROWS, 4>(a, a_row, b + column, b_row, n_k, c + column, c_row);
  for (; column + 2 * N <= n_columns; column += 2 * N)
    block<T, ROWS, 2>(a, a_row, b + column, b_row, n_k, c + column, c_row);
  for (; column < n_columns; ++column)
    for (int i = 0; i < ROWS; ++i) {
      T sum = 0;
      for (int64_t k = 0; k < n_k; ++k) sum += a[i * a_row + k] * b[k * b_row + column];
      c[i * c_row + column] = sum;
    }
}

/// c = a b for the small matrices of a tile, (rows, k) (k, columns), where a library's start costs more.
template <typename T>
void multiply(const T *a, int64_t a_row, const T *b, int64_t b_row, int64_t n_k, T *c, int64_t c_row,
              int64_t n_rows, int64_t n_columns)
{
  int64_t row = 0;
  for (; row + 4 <= n_rows; row += 4)
    some_rows<T, 4>(a + row * a_row, a_row, b, b_row, n_k, c + row * c_row, c_row, n_columns);
  for (; row < n_rows; ++row)
    some_rows<T, 1>(a + row * a_row, a_row, b, b_row, n_k, c + row * c_row, c_row, n_columns);
}

/// What both directions of a run of pairs read.
template <typename T> struct Layer {
  int64_t width, heads, orders, hidden;    // F, h, chi_width, H of each of the two filters
  const T *q, *k, *v;                      // (centres, 2F), (sources, 2F), (sources, F)
  const T *r, *cut, *ylm;                  // (pairs), (pairs), (pairs, orders)
  const T *s, *weight;                     // (pairs, 2H), (2, H, F)
  const T *table;                          // (knots, 2, 2F): value and slope times spacing of the filters
  T spacing;
  int64_t knots;
  const int64_t *i, *j;
  const bool *back;
  std::vector<int64_t> degree_of;    // of each order, its place among the degrees
  std::vector<T> sign;               // of each order, (−1)^l
  int64_t degrees;
};

/// Cubic Hermite weights of two neighbouring knots, and their derivatives by r.
template <typename T> struct Hermite {
  int64_t knot;
  T value[4], slope[4];    // of f_0, f'_0, f_1, f'_1

  Hermite(T r, T spacing, int64_t knots)
  {
    const T x = r / spacing;
    knot = std::min(static_cast<int64_t>(x), knots - 2);
    const T t = x - knot, s = 1 - t, per = 1 / spacing;
    value[0] = (1 + 2 * t) * s * s;
    value[1] = t * s * s;
    value[2] = t * t * (3 - 2 * t);
    value[3] = -t * t * s;
    slope[0] = -6 * t * s * per;
    slope[1] = s * (1 - 3 * t) * per;
    slope[2] = 6 * t * s * per;
    slope[3] = t * (3 * t - 2) * per;
  }
};

template <typename T> void add_radial(const Layer<T> &layer, int64_t pair, T *w)
{
  const Hermite<T> h(layer.r[pair], layer.spacing, layer.knots);
  const int64_t n = 2 * layer.width;
  const T *a = layer.table + h.knot * 2 * n, *b = a + n, *c = b + n, *d = c + n;
#pragma omp simd
  for (int64_t f = 0; f < n; ++f)
    w[f] += h.value[0] * a[f] + h.value[1] * b[f] + h.value[2] * c[f] + h.value[3] * d[f];
}

template <typename T> T radial_slope(const Layer<T> &layer, int64_t pair, const T *g_w)
{
  const Hermite<T> h(layer.r[pair], layer.spacing, layer.knots);
  const int64_t n = 2 * layer.width;
  const T *a = layer.table + h.knot * 2 * n, *b = a + n, *c = b + n, *d = c + n;
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t f = 0; f < n; ++f)
    sum += g_w[f] * (h.slope[0] * a[f] + h.slope[1] * b[f] + h.slope[2] * c[f] + h.slope[3] * d[f]);
  return sum;
}

/// Σ_f a_f b_f c_f of each chunk of a head.
template <typename T>
void products(const T *a, const T *b, const T *c, int64_t heads, int64_t width, T *result)
{
  for (int64_t h = 0; h < heads; ++h) {
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t f = h * width; f < (h + 1) * width; ++f) sum += a[f] * b[f] * c[f];
    result[h] = sum;
  }
}

constexpr int64_t MAX_HEADS = 64;

/// The message of one source to one centre; `turn` is true where the direction is that of the other atom.
template <typename T>
void send(const Layer<T> &layer, int64_t pair, int64_t centre, int64_t source, bool turn, const T *w,
          T *dx, T *dchi)
{
  const int64_t F = layer.width, n = layer.degrees;
  T alpha[MAX_HEADS], beta[MAX_HEADS];
  const T *q = layer.q + centre * 2 * F, *k = layer.k + source * 2 * F, *v = layer.v + source * F;
  products(q, w, k, layer.heads, F / layer.heads, alpha);
  products(q + F, w + F, k + F, n, F / n, beta);
  const T cut = layer.cut[pair];
  T *x = dx + centre * F, *chi = dchi + centre * layer.orders;
  for (int64_t h = 0; h < layer.heads; ++h) {
    const T weight = cut * alpha[h];
#pragma omp simd
    for (int64_t f = h * (F / layer.heads); f < (h + 1) * (F / layer.heads); ++f) x[f] += weight * v[f];
  }
  const T *ylm = layer.ylm + pair * layer.orders;
  for (int64_t m = 0; m < layer.orders; ++m)
    chi[m] += cut * beta[layer.degree_of[m]] * (turn ? layer.sign[m] : T(1)) * ylm[m];
}

/// Where the adjoint of a run of pairs adds up.
template <typename T> struct Slopes {
  T *q, *k, *v;         // as in Layer
  T *cut, *ylm;         // of the pairs
  const T *dx, *dchi;    // of the messages
};

/// The adjoint of `send`; adds to the slope of the filter, g_w.
template <typename T>
void send_back(const Layer<T> &layer, int64_t pair, int64_t centre, int64_t source, bool turn, const T *w,
               T *g_w, const Slopes<T> &g)
{
  const int64_t F = layer.width, n = layer.degrees, wide = F / layer.heads, narrow = F / n;
  T alpha[MAX_HEADS], beta[MAX_HEADS], g_alpha[MAX_HEADS], g_beta[MAX_HEADS];
  const T *q = layer.q + centre * 2 * F, *k = layer.k + source * 2 * F, *v = layer.v + source * F;
  const T *g_x = g.dx + centre * F, *g_chi = g.dchi + centre * layer.orders;
  const T *ylm = layer.ylm + pair * layer.orders;
  const T cut = layer.cut[pair];
  products(q, w, k, layer.heads, wide, alpha);
  products(q + F, w + F, k + F, n, narrow, beta);
  std::fill(g_beta, g_beta + n, T(0));
  T *g_ylm = g.ylm + pair * layer.orders;
  for (int64_t m = 0; m < layer.orders; ++m) {
    const T slope = (turn ? layer.sign[m] : T(1)) * g_chi[m];
    g_beta[layer.degree_of[m]] += slope * ylm[m];
    g_ylm[m] += cut * beta[layer.degree_of[m]] * slope;
  }
  T *g_q = g.q + centre * 2 * F, *g_k = g.k + source * 2 * F, *g_v = g.v + source * F;
  T g_cut = 0;
  for (int64_t h = 0; h < layer.heads; ++h) {
    const T weight = cut * alpha[h];
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t f = h * wide; f < (h + 1) * wide; ++f) {
      sum += g_x[f] * v[f];
      g_v[f] += weight * g_x[f];
    }
    g_cut += alpha[h] * sum;
    g_alpha[h] = cut * sum;
  }
  for (int64_t l = 0; l < n; ++l) {
    g_cut += beta[l] * g_beta[l];
    g_beta[l] *= cut;
  }
  g.cut[pair] += g_cut;
  const auto chunk = [&](int64_t first, int64_t last, T slope) {
#pragma omp simd
    for (int64_t f = first; f < last; ++f) {
      g_q[f] += slope * w[f] * k[f];
      g_k[f] += slope * w[f] * q[f];
      g_w[f] += slope * q[f] * k[f];
    }
  };
  for (int64_t h = 0; h < layer.heads; ++h) chunk(h * wide, (h + 1) * wide, g_alpha[h]);
  for (int64_t l = 0; l < n; ++l) chunk(F + l * narrow, F + (l + 1) * narrow, g_beta[l]);
}

struct Inputs {
  Tensor q, k, v, hidden, r, cut, ylm, weight, table, idx_i, idx_j, back;
  double spacing;
  int64_t heads;
  std::vector<int64_t> degrees;
};

template <typename T> Layer<T> layer_of(const Inputs &in)
{
  Layer<T> layer;
  layer.width = in.v.size(1);
  layer.heads = in.heads;
  layer.orders = in.ylm.size(1);
  layer.hidden = in.weight.size(1);
  layer.q = in.q.const_data_ptr<T>();
  layer.k = in.k.const_data_ptr<T>();
  layer.v = in.v.const_data_ptr<T>();
  layer.r = in.r.const_data_ptr<T>();
  layer.cut = in.cut.const_data_ptr<T>();
  layer.ylm = in.ylm.const_data_ptr<T>();
  layer.s = in.hidden.const_data_ptr<T>();
  layer.weight = in.weight.const_data_ptr<T>();
  layer.table = in.table.const_data_ptr<T>();
  layer.spacing = static_cast<T>(in.spacing);
  layer.knots = in.table.size(0);
  layer.i = in.idx_i.const_data_ptr<int64_t>();
  layer.j = in.idx_j.const_data_ptr<int64_t>();
  layer.back = in.back.const_data_ptr<bool>();
  layer.degrees = static_cast<int64_t>(in.degrees.size());
  for (int64_t n = 0; n < layer.degrees; ++n)
    for (int64_t m = 0; m < 2 * in.degrees[n] + 1; ++m) {
      layer.degree_of.push_back(n);
      layer.sign.push_back(in.degrees[n] % 2 ? T(-1) : T(1));
    }
  return layer;
}

/// The filters of some pairs, (pairs, 2F): spherical part by matrix products, radial part from the table.
template <typename T> void filters(const Layer<T> &layer, int64_t first, int64_t last, T *w)
{
  const int64_t F = layer.width, H = layer.hidden, n = last - first;
  for (int64_t part = 0; part < 2; ++part)
    multiply(layer.s + first * 2 * H + part * H, 2 * H, layer.weight + part * H * F, F, H, w + part * F,
             2 * F, n, F);
  for (int64_t p = first; p < last; ++p) add_radial(layer, p, w + (p - first) * 2 * F);
}

template <typename T> void forward_of(const Inputs &in, Tensor &dx, Tensor &dchi)
{
  const auto layer = layer_of<T>(in);
  const int64_t n_pairs = in.r.size(0);
  auto *x = dx.data_ptr<T>();
  auto *chi = dchi.data_ptr<T>();
  std::vector<T> w(std::min(TILE, n_pairs) * 2 * layer.width);
  for (int64_t first = 0; first < n_pairs; first += TILE) {
    const auto last = std::min(first + TILE, n_pairs);
    filters(layer, first, last, w.data());
    for (int64_t p = first; p < last; ++p) {
      const auto *row = w.data() + (p - first) * 2 * layer.width;
      send(layer, p, layer.i[p], layer.j[p], false, row, x, chi);
      if (layer.back[p]) send(layer, p, layer.j[p], layer.i[p], true, row, x, chi);
    }
  }
}

struct Adjoint {
  Tensor q, k, v, hidden, r, cut, ylm;
};

template <typename T> void backward_of(const Inputs &in, const Tensor &dx, const Tensor &dchi, Adjoint &g)
{
  const auto layer = layer_of<T>(in);
  const int64_t n_pairs = in.r.size(0), F = layer.width, H = layer.hidden;
  const Slopes<T> slopes = {g.q.data_ptr<T>(),          g.k.data_ptr<T>(),   g.v.data_ptr<T>(),
                            g.cut.data_ptr<T>(),        g.ylm.data_ptr<T>(), dx.const_data_ptr<T>(),
                            dchi.const_data_ptr<T>()};
  auto *g_r = g.r.data_ptr<T>();
  auto *g_hidden = g.hidden.data_ptr<T>();
  const Tensor turned = in.weight.transpose(1, 2).contiguous();
  const auto *back = turned.const_data_ptr<T>();
  std::vector<T> w(std::min(TILE, n_pairs) * 2 * F), g_w(w.size());
  for (int64_t first = 0; first < n_pairs; first += TILE) {
    const auto last = std::min(first + TILE, n_pairs);
    filters(layer, first, last, w.data());
    std::fill(g_w.begin(), g_w.end(), T(0));
    for (int64_t p = first; p < last; ++p) {
      const auto *row = w.data() + (p - first) * 2 * F;
      auto *g_row = g_w.data() + (p - first) * 2 * F;
      send_back(layer, p, layer.i[p], layer.j[p], false, row, g_row, slopes);
      if (layer.back[p]) send_back(layer, p, layer.j[p], layer.i[p], true, row, g_row, slopes);
      g_r[p] = radial_slope(layer, p, g_row);
    }
    for (int64_t part = 0; part < 2; ++part)
      multiply(g_w.data() + part * F, 2 * F, back + part * F * H, H, F, g_hidden + first * 2 * H + part * H,
               2 * H, last - first, H);
  }
}

std::pair<Tensor, Tensor> messages(const Inputs &in)
{
  auto dx = at::zeros({in.q.size(0), in.v.size(1)}, in.q.options());
  auto dchi = at::zeros({in.q.size(0), in.ylm.size(1)}, in.q.options());
  if (in.q.scalar_type() == at::kFloat)
    forward_of<float>(in, dx, dchi);
  else
    forward_of<double>(in, dx, dchi);
  return {dx, dchi};
}

void check(const Inputs &in)
{
  TORCH_CHECK(in.q.scalar_type() == at::kFloat || in.q.scalar_type() == at::kDouble,
              "[so3k] the kernels work in float32 and float64");
  TORCH_CHECK(in.heads <= MAX_HEADS && static_cast<int64_t>(in.degrees.size()) <= MAX_HEADS,
              "[so3k] more heads than the kernels hold");
  TORCH_CHECK(in.table.size(0) > 1 && in.table.size(2) == 2 * in.v.size(1), "[so3k] a table of other filters");
}

class Attend : public torch::autograd::Function<Attend> {
 public:
  static variable_list forward(AutogradContext *context, const Tensor &q, const Tensor &k, const Tensor &v,
                               const Tensor &hidden, const Tensor &r, const Tensor &cut, const Tensor &ylm,
                               const Tensor &weight, const Tensor &table, const Tensor &idx_i,
                               const Tensor &idx_j, const Tensor &back, double spacing, int64_t heads,
                               const std::vector<int64_t> &degrees)
  {
    const Inputs in = {q.contiguous(),   k.contiguous(),     v.contiguous(),     hidden.contiguous(),
                       r.contiguous(),   cut.contiguous(),   ylm.contiguous(),   weight.contiguous(),
                       table.contiguous(), idx_i.contiguous(), idx_j.contiguous(), back.contiguous(),
                       spacing,          heads,              degrees};
    check(in);
    context->save_for_backward({in.q, in.k, in.v, in.hidden, in.r, in.cut, in.ylm, in.weight, in.table,
                                in.idx_i, in.idx_j, in.back});
    context->saved_data["spacing"] = spacing;
    context->saved_data["heads"] = heads;
    context->saved_data["degrees"] = degrees;
    const auto [dx, dchi] = messages(in);
    return {dx, dchi};
  }

  static variable_list backward(AutogradContext *context, const variable_list &slopes)
  {
    const auto saved = context->get_saved_variables();
    const Inputs in = {saved[0],  saved[1],
                       saved[2],  saved[3],
                       saved[4],  saved[5],
                       saved[6],  saved[7],
                       saved[8],  saved[9],
                       saved[10], saved[11],
                       context->saved_data["spacing"].toDouble(), context->saved_data["heads"].toInt(),
                       context->saved_data["degrees"].toIntVector()};
    const auto filled = [&](const Tensor &slope, const Tensor &like, int64_t columns) {
      return slope.defined() ? slope.contiguous() : at::zeros({like.size(0), columns}, like.options());
    };
    const auto dx = filled(slopes[0], in.q, in.v.size(1));
    const auto dchi = filled(slopes[1], in.q, in.ylm.size(1));
    Adjoint g = {at::zeros_like(in.q),     at::zeros_like(in.k),   at::zeros_like(in.v),
                 at::empty_like(in.hidden), at::empty_like(in.r),  at::zeros_like(in.cut),
                 at::zeros_like(in.ylm)};
    if (in.q.scalar_type() == at::kFloat)
      backward_of<float>(in, dx, dchi, g);
    else
      backward_of<double>(in, dx, dchi, g);
    const Tensor none;
    return {g.q, g.k, g.v, g.hidden, g.r, g.cut, g.ylm, none, none, none, none, none, none, none, none};
  }
};

std::tuple<Tensor, Tensor> attend(const Tensor &q, const Tensor &k, const Tensor &v, const Tensor &hidden,
                                  const Tensor &r, const Tensor &cut, const Tensor &ylm, const Tensor &weight,
                                  const Tensor &table, const Tensor &idx_i, const Tensor &idx_j,
                                  const Tensor &back, double spacing, int64_t heads,
                                  std::vector<int64_t> degrees)
{
  const auto found = Attend::apply(q, k, v, hidden, r, cut, ylm, weight, table, idx_i, idx_j, back, spacing,
                                   heads, degrees);
  return {found[0], found[1]};
}

}    // namespace

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  library.def(
      "attend(Tensor q, Tensor k, Tensor v, Tensor hidden, Tensor r, Tensor cut, Tensor ylm, Tensor weight, "
      "Tensor table, Tensor idx_i, Tensor idx_j, Tensor back, float spacing, int heads, int[] degrees) "
      "-> (Tensor, Tensor)",
      attend);
}
