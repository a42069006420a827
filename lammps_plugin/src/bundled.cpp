/* so3k-md: pair_style so3k, model files and bundled models. GPL-2, see ../LICENSE. */

#include "bundled.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <vector>

namespace fs = std::filesystem;

namespace So3k {

namespace {

  /// Folder of the bundled models: set by so3k_md.engines.lammps, else next to the plugin's
  /// sources.
  fs::path bundled_folder()
  {
    const auto *folder = std::getenv("SO3K_PRETRAINED");
    return folder ? folder : SO3K_PRETRAINED;
  }

  std::string bundled_names()
  {
    std::vector<std::string> names;
    std::error_code ignored;
    for (const auto &entry : fs::directory_iterator(bundled_folder(), ignored))
      if (entry.path().extension() == ".pt") names.push_back(entry.path().stem().string());
    std::sort(names.begin(), names.end());
    std::string text;
    for (const auto &name : names) text += (text.empty() ? "" : ", ") + name;
    return text.empty() ? "none found" : text;
  }

  fs::path resolve(const std::string &path)
  {
    std::error_code ignored;
    const auto bundled = bundled_folder() / (path + ".pt");
    if (fs::is_directory(path, ignored))
      throw std::runtime_error(path + " is a folder: name the model file in it");
    if (fs::is_regular_file(path, ignored)) return path;
    if (fs::exists(path, ignored))    // a pipe or a device may have no end
      throw std::runtime_error(path + " is not a file: name a model file");
    if (fs::path(path).filename() == path && fs::exists(bundled, ignored)) return bundled;
    throw std::runtime_error("there is no model file " + path +
                             ": check the path in pair_coeff; bundled models: " + bundled_names());
  }

}    // namespace

std::string read_model(const std::string &path)
{
  const auto file = resolve(path);
  std::ifstream stream(file, std::ios::binary);
  if (!stream)
    throw std::runtime_error("the model file " + path + " cannot be read: check its permissions");
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

}    // namespace So3k
