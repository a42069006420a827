/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#include "model.h"

#include <ATen/Parallel.h>
#include <torch/csrc/jit/serialization/import.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "json.h"

using at::Tensor;
using torch::jit::Module;

namespace So3k {

namespace {

  constexpr int64_t FORMAT_VERSION = 1;

  /// The methods that this plugin calls.
  const std::vector<std::string> STAGES = {"geometry", "embed",  "initial_chi",
                                           "attend",   "update", "readout"};

  Module read(const std::string &file)
  {
    std::istringstream stream(file);
    try {
      return torch::jit::load(stream, at::kCPU);
    } catch (const std::exception &error) {
      throw std::runtime_error("no TorchScript file, or a damaged one: " + brief(error));
    }
  }

  /// The two tensors that a stage returns.
  std::pair<Tensor, Tensor> two(const c10::IValue &value)
  {
    const auto &elements = value.toTupleRef().elements();
    return {elements[0].toTensor(), elements[1].toTensor()};
  }

}    // namespace

Model::Model(const std::string &file, std::optional<at::ScalarType> dtype, at::Device device) :
    device(device)
{
  const auto artefact = read(file);
  describe(artefact);
  prepare(artefact, dtype);
}

void Model::describe(const Module &artefact)
{
  for (const auto &stage : STAGES)
    if (!artefact.find_method(stage)) throw std::runtime_error("it has no stage '" + stage + "'");
  const auto version = artefact.attr("format_version").toInt();
  if (version != FORMAT_VERSION)
    throw std::runtime_error("its format is " + std::to_string(version) + ", this plugin reads " +
                             std::to_string(FORMAT_VERSION));
  if (artefact.attr("nonlocal_kind").toStringRef() != "none")
    throw std::runtime_error("this plugin has no non-local attention of kind '" +
                             artefact.attr("nonlocal_kind").toStringRef() + "'");
  name = LAMMPS_NS::json::parse(artefact.attr("metadata").toStringRef()).value("name", "unnamed");
  cutoff = artefact.attr("cutoff").toDouble();
  elements = artefact.attr("elements").toIntVector();
  n_layers = artefact.attr("n_layers").toInt();
  features = artefact.attr("features").toInt();
  chi_width = artefact.attr("chi_width").toInt();
  chi_from_neighbours = artefact.attr("chi_from_neighbours").toBool();
}

void Model::prepare(Module artefact, std::optional<at::ScalarType> dtype)
{
  artefact.eval();
  // Only the parameters carry the precision: buffers are float64 constants that the stages cast.
  auto found = at::kDouble;
  for (auto parameter : artefact.parameters()) {
    found = dtype.value_or(parameter.scalar_type());
    parameter.set_requires_grad(false);
    parameter.set_data(parameter.to(found));
  }
  precision = found == at::kDouble ? "float64" : "float32";
  artefact.to(device);
  module = torch::jit::freeze(artefact, STAGES);
}

bool Model::knows(int64_t atomic_number) const
{
  return std::find(elements.begin(), elements.end(), atomic_number) != elements.end();
}

Tensor Model::energies(const Pairs &pairs, const Tensor &species, int64_t n_centres,
                       const Exchange &exchange) const
{
  const auto n_rows = species.size(0);
  const auto edges = module.run_method("geometry", pairs.vectors, pairs.idx_i, pairs.idx_j);
  // The features of remote atoms before the first layer follow from their species: nothing to send.
  auto x_src = module.run_method("embed", species).toTensor();
  auto x = x_src.narrow(0, 0, n_centres);
  auto chi = module.run_method("initial_chi", edges, n_centres).toTensor();
  auto chi_src = chi_from_neighbours ? exchange(chi) : chi.new_zeros({n_rows, chi_width});
  for (int64_t k = 0; k < n_layers; ++k) {
    if (k > 0) {
      const auto rows = exchange(at::cat({x, chi}, 1));
      x_src = rows.narrow(1, 0, features);
      chi_src = rows.narrow(1, features, chi_width);
    }
    const auto [dx, dchi] = two(module.run_method("attend", k, x, chi, x_src, chi_src, edges));
    std::tie(x, chi) = two(module.run_method("update", k, x, chi, dx, dchi));
  }
  return module.run_method("readout", x, species.narrow(0, 0, n_centres)).toTensor();
}

TorchScope::TorchScope(at::Device device) :
    autograd(c10::AutogradState::get_tls_state()), n_threads(at::get_num_threads())
{
  if (device.is_cuda()) device_guard.reset_device(device);
  // Backward on the calling thread: MPI was initialised for that one only.
  auto own = autograd;
  own.set_grad_mode(true);
  own.set_multithreading_enabled(false);
  c10::AutogradState::set_tls_state(own);
  // The number of pairs changes at every step: kernels must not be compiled for a fixed one.
  torch::jit::FusionStrategy dynamic = {
      {torch::jit::FusionBehavior::DYNAMIC, device.is_cuda() ? 10 : 0}};
  fusion = torch::jit::setFusionStrategy(dynamic);
  // Ranks share the cores, so that one thread each is the default, as in LAMMPS itself.
  if (!std::getenv("OMP_NUM_THREADS") && n_threads != 1) at::set_num_threads(1);
}

TorchScope::~TorchScope()
{
  c10::AutogradState::set_tls_state(autograd);
  torch::jit::setFusionStrategy(fusion);
  if (at::get_num_threads() != n_threads) at::set_num_threads(n_threads);
}

std::string brief(const std::exception &error)
{
  const auto *torch_error = dynamic_cast<const c10::Error *>(&error);
  std::string text = torch_error ? torch_error->what_without_backtrace() : error.what();
  // An error inside TorchScript ends with the line that names it.
  const auto inner = text.rfind("Error: ");
  if (inner != std::string::npos) text = text.substr(text.rfind('\n', inner) + 1);
  return text.substr(0, text.find('\n'));
}

}    // namespace So3k
