/* so3k-md: pair_style so3k, the metadata of a model file. GPL-2, see ../LICENSE. */

#include "metadata.h"

namespace So3k {

namespace {

  /// The string that begins at `place`, a quotation mark; moves `place` to the mark that ends it.
  std::string quoted(const std::string &json, size_t &place)
  {
    std::string text;
    for (++place; place < json.size() && json[place] != '"'; ++place) {
      // of escapes only those that json.dumps makes of printed letters; others stay as written
      if (json[place] == '\\' && place + 1 < json.size() &&
          std::string("\"\\/").find(json[place + 1]) != std::string::npos)
        ++place;
      text += json[place];
    }
    return text;
  }

}    // namespace

std::string json_text(const std::string &json, const std::string &key)
{
  int depth = 0;
  bool is_value = false, is_wanted = false;    // of the string that comes next, in the outer object
  for (size_t k = 0; k < json.size(); ++k) {
    const char c = json[k];
    if (c == '"') {
      const auto text = quoted(json, k);
      if (depth == 1 && is_value && is_wanted) return text;
      if (depth == 1 && !is_value) is_wanted = text == key;
    }
    depth += (c == '{' || c == '[') - (c == '}' || c == ']');
    if (depth == 1 && (c == ':' || c == ',')) is_value = c == ':';
  }
  return "";
}

}    // namespace So3k
