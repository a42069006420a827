/* so3k-md: pair_style so3k, the metadata of a model file. GPL-2, see ../LICENSE. */

#include "metadata.h"

#include <algorithm>

namespace So3k {

namespace {

  /// The string that begins at `place`, a quotation mark; moves `place` to the mark that ends it.
  std::string quoted(const std::string &json, size_t &place)
  {
    std::string text;
    for (++place; place < json.size() && json[place] != '"'; ++place) {
      // decodes only the escapes that json.dumps writes for printable characters; others stay
      if (json[place] == '\\' && place + 1 < json.size() &&
          std::string("\"\\/").find(json[place + 1]) != std::string::npos)
        ++place;
      text += json[place];
    }
    return text;
  }

}    // namespace

std::string json_value(const std::string &json, const std::string &key)
{
  int depth = 0;
  bool is_value = false, is_wanted = false;    // of the next item, in the outer object
  size_t begin = 0;
  for (size_t k = 0; k < json.size(); ++k) {
    const char c = json[k];
    if (c == '"') {
      const auto text = quoted(json, k);
      if (depth == 1 && !is_value) is_wanted = text == key;
    }
    depth += (c == '{' || c == '[') - (c == '}' || c == ']');
    const bool ends = (depth == 1 && c == ',') || (depth == 0 && c == '}');
    if (ends && is_value && is_wanted) return json.substr(begin, k - begin);
    if (depth == 1 && (c == ':' || c == ',')) {
      is_value = c == ':';
      begin = k + 1;
    }
  }
  return "";
}

std::string json_text(const std::string &json, const std::string &key)
{
  const auto value = json_value(json, key);
  auto mark = value.find_first_not_of(" \n\t");
  return mark != std::string::npos && value[mark] == '"' ? quoted(value, mark) : "";
}

std::vector<int64_t> json_integers(const std::string &json)
{
  std::vector<int64_t> found;
  for (size_t k = 0; k < json.size();) {
    if (json[k] < '0' || json[k] > '9') {
      ++k;
      continue;
    }
    const auto end = std::min(json.find_first_not_of("0123456789", k), json.size());
    found.push_back(std::stoll(json.substr(k, end - k)));
    k = end;
  }
  return found;
}

}    // namespace So3k
