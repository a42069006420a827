/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#include "model.h"

#include <ATen/Parallel.h>
#include <torch/csrc/jit/serialization/import.h>

#include <algorithm>
#include <map>
#include <sstream>

#include "far.h"
#include "kernels.h"
#include "metadata.h"
#include "seal.h"

using at::Tensor;
using torch::jit::Module;

namespace So3k {

namespace {

  constexpr int64_t FORMAT_VERSION = 5;
  const std::string KERNEL_FILE = "so3k_kernels.4.pt";    // the model without weights, see export/

  /// The methods that this plugin calls, of every model and of each kind of non-local attention.
  const std::vector<std::string> STAGES = {
      "geometry",    "affinities",  "shares",    "embed",           "initial_chi",  "attend",
      "update",      "readout",     "conserved", "close_repulsion", "raw_charges",  "ratios",
      "long_slopes", "self_slopes", "wave_sums", "wave_slopes",     "wave_virials", "open_slopes"};
  const std::map<std::string, std::vector<std::string>> FAR_STAGES = {
      {"none", {}},
      {"sphc", {"group_rows", "tiles", "far_attend"}},
      {"efa", {"waves", "far_whole", "far_sums", "far_read", "support", "diameter"}}};

  Module read(const std::string &file, torch::jit::ExtraFilesMap &inside)
  {
    require_seal(file);    // before torch runs code of the file
    std::istringstream stream(file);
    try {
      return torch::jit::load(stream, at::kCPU, inside);
    } catch (const std::exception &error) {
      throw std::runtime_error("this torch cannot read it: " + brief(error));
    }
  }

  at::ScalarType precision_of(const Module &artefact)
  {
    for (const auto &parameter : artefact.parameters()) return parameter.scalar_type();
    return at::kDouble;
  }

  /// The model, in the form that calls the compiled kernels where these serve it.
  Module read(const std::string &file, std::optional<at::ScalarType> precision, at::Device device)
  {
    torch::jit::ExtraFilesMap inside = {{KERNEL_FILE, ""}}, nothing;
    const auto model = read(file, inside);
    const auto &code = inside[KERNEL_FILE];
    const auto fits = device.is_cpu() && precision.value_or(precision_of(model)) == at::kFloat;
    if (code.empty() || !fits || !load_kernels()) return model;
    const auto form = read(code, nothing);
    std::map<std::string, Tensor> weights;
    for (const auto &each : model.named_parameters()) weights[each.name] = each.value;
    for (const auto &each : model.named_buffers()) weights[each.name] = each.value;
    for (auto each : form.named_parameters()) each.value.set_data(weights.at(each.name));
    for (auto each : form.named_buffers()) each.value.set_data(weights.at(each.name));
    return form;
  }

  void require(const Module &artefact, const std::vector<std::string> &stages)
  {
    for (const auto &stage : stages)
      if (!artefact.find_method(stage)) throw std::runtime_error("it has no stage '" + stage + "'");
  }

}    // namespace

std::pair<Tensor, Tensor> two(const c10::IValue &value)
{
  const auto &elements = value.toTupleRef().elements();
  return {elements[0].toTensor(), elements[1].toTensor()};
}

Model::Model(const std::string &file, std::optional<at::ScalarType> precision,
             const LongRangeOptions &long_range, at::Device device) :
    device(device), artefact(read(file, precision, device))
{
  describe(long_range);
  prepare(precision);
}

void Model::describe(const LongRangeOptions &long_range)
{
  require(artefact, STAGES);
  const auto version = artefact.attr("format_version").toInt();
  if (version != FORMAT_VERSION)
    throw std::runtime_error("its format is " + std::to_string(version) + ", this plugin reads " +
                             std::to_string(FORMAT_VERSION));
  nonlocal_kind = artefact.attr("nonlocal_kind").toStringRef();
  if (!FAR_STAGES.count(nonlocal_kind))
    throw std::runtime_error("this plugin has no non-local attention of kind '" + nonlocal_kind +
                             "'");
  require(artefact, FAR_STAGES.at(nonlocal_kind));
  far_reach = artefact.attr("far_reach").toDouble();
  needs_lattice = nonlocal_kind == "efa" && far_reach == 0.0;
  const auto &metadata = artefact.attr("metadata").toStringRef();
  references.emplace(metadata);
  name = json_text(metadata, "name");
  if (name.empty()) name = "unnamed";
  cutoff = artefact.attr("cutoff").toDouble();
  elements = artefact.attr("elements").toIntVector();
  n_layers = artefact.attr("n_layers").toInt();
  features = artefact.attr("features").toInt();
  chi_width = artefact.attr("chi_width").toInt();
  has_kernels = artefact.hasattr("kernels");
  chi_from_neighbours = artefact.attr("chi_from_neighbours").toBool();
  has_totals = artefact.attr("has_totals").toBool();
  has_zbl = artefact.attr("has_zbl").toBool();
  has_long_range = artefact.attr("has_long_range").toBool();
  singlets_only = artefact.attr("singlets_only").toBool();
  energy_shift = artefact.attr("energy_shift").toDouble();
  coulomb = long_range.coulomb;
  cutoff_lr = long_range.cutoff_lr;
  artefact.setattr("coulomb", coulomb);
  artefact.setattr("cutoff_lr", cutoff_lr);
}

void Model::prepare(std::optional<at::ScalarType> precision)
{
  artefact.eval();
  // Only the parameters carry the precision: buffers are float64 constants that the stages cast.
  dtype = precision.value_or(precision_of(artefact));
  for (auto parameter : artefact.parameters()) {
    parameter.set_requires_grad(false);
    parameter.set_data(parameter.to(dtype));
  }
  artefact.to(device);
  auto stages = STAGES;
  const auto &far_stages = FAR_STAGES.at(nonlocal_kind);
  stages.insert(stages.end(), far_stages.begin(), far_stages.end());
  module = torch::jit::freeze(artefact, stages);
}

bool Model::knows(int64_t atomic_number) const
{
  return std::find(elements.begin(), elements.end(), atomic_number) != elements.end();
}

double Model::bytes() const
{
  double sum = 0.0;
  for (const auto &parameter : artefact.parameters())
    sum += static_cast<double>(parameter.nbytes());
  for (const auto &buffer : artefact.buffers()) sum += static_cast<double>(buffer.nbytes());
  return sum;
}

double Model::bytes_of_rows(int64_t n_rows) const
{
  return (static_cast<double>(n_layers) + 1.0) * static_cast<double>(n_rows) *
      static_cast<double>(features + chi_width) * element_size();
}

Tensor Model::last_features(const PairList &near, const Tensor &shares, int64_t n_centres,
                            const Far *far) const
{
  const auto &pairs = near.pairs;
  const auto n_rows = near.species.size(0);
  const auto edges = run("geometry", pairs.vectors, pairs.idx_i, pairs.idx_j);
  // The features of remote atoms before the first layer follow from their species: nothing to send.
  auto x_src = run("embed", near.species, shares).toTensor();
  auto x = x_src.narrow(0, 0, n_centres);
  auto chi = run("initial_chi", edges, n_centres).toTensor();
  auto chi_src = chi.new_zeros({n_rows, chi_width});
  for (int64_t k = 0; k < n_layers; ++k) {
    std::vector<Parcel> parcels;
    if (k > 0) parcels.push_back({&near.exchange, at::cat({x, chi}, 1)});
    if (k == 0 && chi_from_neighbours) parcels.push_back({&near.exchange, chi});
    const auto n_near = parcels.size();
    if (far)
      for (auto &parcel : far->outgoing(k, x, chi)) parcels.push_back(parcel);
    const auto arrived = deliver(parcels);
    if (k > 0) std::tie(x_src, chi_src) = split(arrived[0]);
    if (k == 0 && chi_from_neighbours) chi_src = arrived[0];
    auto [dx, dchi] = two(run("attend", k, x, chi, x_src, chi_src, edges));
    if (far) far->add(k, at::TensorList(arrived).slice(n_near), dx, dchi);
    std::tie(x, chi) = two(run("update", k, x, chi, dx, dchi));
  }
  return x;
}

TorchScope::TorchScope(at::Device device) : autograd(c10::AutogradState::get_tls_state())
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
  if (at::get_num_threads() != 1) at::set_num_threads(1);
}

TorchScope::~TorchScope()
{
  c10::AutogradState::set_tls_state(autograd);
  torch::jit::setFusionStrategy(fusion);
}

OuterThreads::OuterThreads() : n_threads(at::get_num_threads()) {}

OuterThreads::~OuterThreads()
{
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
