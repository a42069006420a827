/* so3k-md: pair_style so3k, which energies can be compared. GPL-2, see ../LICENSE. */

#include "references.h"

#include "elements.h"
#include "metadata.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

namespace So3k {

namespace {

  constexpr size_t MOST_FORMULAS = 6;    // in a message

  double dot(const std::vector<double> &a, const std::vector<double> &b)
  {
    return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
  }

  /// Subtracts from `rest` its projection on `basis`, whose members have length one; done twice,
  /// because of rounding.
  void project_out(std::vector<double> &rest, const std::vector<std::vector<double>> &basis)
  {
    for (int round = 0; round < 2; ++round)
      for (const auto &direction : basis) {
        const double share = dot(rest, direction);
        for (size_t k = 0; k < rest.size(); ++k) rest[k] -= share * direction[k];
      }
  }

}    // namespace

References::References(const std::string &metadata)
{
  const auto known = json_value(metadata, "references");
  const auto source = json_text(known, "source");
  absolute = source.empty() || source == "isolated atoms" || source == "given";
  elements = json_integers(json_value(known, "elements"));
  for (const auto z : elements)
    if (z >= static_cast<int64_t>(SYMBOLS.size()))
      throw std::runtime_error("its metadata contain an unknown atomic number " +
                               std::to_string(z));
  const auto counts = json_integers(json_value(known, "compositions"));
  for (size_t k = 0; !elements.empty() && k + elements.size() <= counts.size();
       k += elements.size())
    compositions.emplace_back(counts.begin() + k, counts.begin() + k + elements.size());
}

bool References::comparable(const std::vector<int64_t> &counts) const
{
  if (absolute) return true;
  std::vector<double> rest;
  for (const auto z : elements) rest.push_back(static_cast<double>(counts.at(z)));
  const auto atoms = std::accumulate(counts.begin(), counts.end(), 0.0);
  if (std::accumulate(rest.begin(), rest.end(), 0.0) < atoms) return false;
  std::vector<std::vector<double>> basis;
  for (auto direction : compositions) {
    const double before = std::sqrt(dot(direction, direction));
    project_out(direction, basis);
    const double length = std::sqrt(dot(direction, direction));
    if (length <= 1e-9 * before) continue;    // a linear combination of those before
    for (auto &component : direction) component /= length;
    basis.push_back(direction);
  }
  const double whole = std::sqrt(dot(rest, rest));
  project_out(rest, basis);
  return !basis.empty() && std::sqrt(dot(rest, rest)) < 1e-6 * std::max(1.0, whole);
}

std::string References::trained() const
{
  std::string text;
  for (size_t row = 0; row < std::min(compositions.size(), MOST_FORMULAS); ++row) {
    std::vector<int64_t> counts(SYMBOLS.size(), 0);
    for (size_t k = 0; k < elements.size(); ++k)
      counts.at(elements[k]) = static_cast<int64_t>(compositions[row][k]);
    text += (row ? ", " : "") + formula(counts);
  }
  return text;
}

std::string formula(const std::vector<int64_t> &counts)
{
  std::vector<int64_t> order;
  for (size_t z = 1; z < counts.size(); ++z)
    if (counts[z]) order.push_back(static_cast<int64_t>(z));
  const auto key = [](int64_t z) {
    const std::string symbol = SYMBOLS.at(z);
    return (symbol == "C" ? "0" : symbol == "H" ? "1" : "2") + symbol;
  };
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return key(a) < key(b); });
  std::string text;
  for (const auto z : order)
    text += SYMBOLS.at(z) + (counts[z] > 1 ? std::to_string(counts[z]) : "");
  return text;
}

}    // namespace So3k
