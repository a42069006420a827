/* so3k-md: each pair in one of its two directions. MIT. */

#ifndef SO3K_ONCE_H
#define SO3K_ONCE_H

#include <algorithm>
#include <cstdint>
#include <vector>

namespace So3k {

/// Whether a vector v, and not −v, points to the half of space that is kept.
inline bool upward(const double *v)
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

}    // namespace So3k

#endif
