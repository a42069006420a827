/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#include "model.h"

#include <ATen/Parallel.h>
#include <torch/csrc/jit/serialization/import.h>

#include <algorithm>
#include <map>
#include <sstream>
#include <thread>

#include "device.h"
#include "kernels.h"
#include "metadata.h"
#include "seal.h"

using at::Tensor;
using torch::jit::Module;

namespace So3k {

namespace {

  constexpr int64_t FORMAT_VERSION = 7;
  // compiled forms without weights
  const std::string CPU_KERNELS = "so3k_kernels.7.pt", GPU_KERNELS = "so3k_kernels.cuda.7.pt";

  using Stages = std::vector<std::string>;

  /// The stages of parts that this plugin calls; see so3k_md/export/contract.py.
  const Stages REPRESENTATION = {"edges", "embed", "initial_chi"}, LAYER = {"attend", "update"},
               ENERGIES = {"readout", "close_repulsion"}, CHARGE_STATE = {"affinities", "shares"},
               PHYSICS = {"raw_charges", "ratios", "conserved", "self_derivatives",
                          "open_derivatives"},
               LONG_PAIRS = {"forward"}, LATTICE_SUM = {"sums", "read", "virials"};

  struct NonLocal {
    Stages reach, layer, efa;
  };
  const std::map<std::string, NonLocal> NONLOCAL = {
      {"none", {}},
      {"sphc", {{"group_rows"}, {"tiles", "sphc_attend"}, {}}},
      {"efa", {{"waves", "signed", "support", "diameter"}, {}, {"forward", "sums", "read"}}}};

  Module read(const std::string &file, at::Device device, torch::jit::ExtraFilesMap &inside)
  {
    require_seal(file);    // before torch runs code of the file
    std::istringstream stream(file);
    try {
      return torch::jit::load(stream, device, inside);
    } catch (const std::exception &error) {
      throw std::runtime_error("this torch cannot read it: " + cause_of(error));
    }
  }

  at::ScalarType precision_of(const Module &artefact)
  {
    for (const auto &parameter : artefact.parameters()) return parameter.scalar_type();
    return at::kDouble;
  }

  /// The compiled form of a model, from its code without weights.
  Module with_weights(const std::string &code, const Module &model)
  {
    torch::jit::ExtraFilesMap nothing;
    const auto form = read(code, at::kCPU, nothing);
    std::map<std::string, Tensor> weights;
    for (const auto &each : model.named_parameters()) weights[each.name] = each.value;
    for (const auto &each : model.named_buffers()) weights[each.name] = each.value;
    // a part shared by several parts has several names, and the plain form has fewer of these
    const auto fill = [&](const std::string &name, Tensor value) {
      if (weights.count(name)) value.set_data(weights.at(name));
    };
    for (const auto &each : form.named_parameters()) fill(each.name, each.value);
    for (const auto &each : form.named_buffers()) fill(each.name, each.value);
    return form;
  }

}    // namespace

std::pair<Tensor, Tensor> two(const c10::IValue &value)
{
  const auto &elements = value.toTupleRef().elements();
  return {elements[0].toTensor(), elements[1].toTensor()};
}

Model::Model(const std::string &file, std::optional<at::ScalarType> precision,
             const LongRangeOptions &long_range, at::Device device) : device(device)
{
  const auto &file = device.is_cpu() ? CPU_KERNELS : GPU_KERNELS;
  torch::jit::ExtraFilesMap inside = {{file, ""}};
  artefact = read(file, device, inside);
  const auto &code = inside[file];
  form = choose(!code.empty(), device, precision.value_or(precision_of(artefact)));
  if (form.compiled) artefact = with_weights(code, artefact);
  describe(long_range);
  find_parts();
  prepare(precision);
}

Part Part::operator[](const std::string &name) const
{
  if (!exists() || !module->hasattr(name)) return {};
  const auto value = module->attr(name);
  return value.isModule() ? Part(value.toModule()) : Part();
}

std::vector<Part> Part::list() const
{
  std::vector<Part> parts;
  if (exists())
    for (const auto &child : module->children()) parts.emplace_back(child);
  return parts;
}

void Part::require(const std::vector<std::string> &stages) const
{
  for (const auto &stage : stages)
    if (!exists() || !module->find_method(stage))
      throw std::runtime_error("it has no stage '" + stage + "'");
}

c10::TupleTypePtr Part::tuple_of(const char *stage) const
{
  const auto &schema = module->get_method(stage).function().getSchema();
  return schema.arguments().at(1).type()->expect<c10::TupleType>();
}

/// A field of the named tuple `needs`.
c10::IValue Model::need(const std::string &name) const
{
  const auto type = artefact.type()->getAttribute("needs")->expect<c10::TupleType>();
  const auto &elements = artefact.attr("needs").toTupleRef().elements();
  const auto fields = type->names().value_or(std::vector<c10::string_view>{});
  for (size_t k = 0; k < fields.size(); ++k)
    if (fields[k] == name) return elements[k];
  throw std::runtime_error("it does not state its " + name);
}

void Model::describe(const LongRangeOptions &long_range)
{
  if (!artefact.hasattr("needs"))
    throw std::runtime_error(artefact.hasattr("format_version")
                                 ? "it has an old format: convert it with so3k-md export "
                                   "OLD.pt -o NEW.pt"
                                 : "it is not a model of so3k-md");
  const auto version = need("format_version").toInt();
  if (version != FORMAT_VERSION)
    throw std::runtime_error("its format is " + std::to_string(version) + ", this plugin reads " +
                             std::to_string(FORMAT_VERSION));
  nonlocal_kind = need("nonlocal_kind").toStringRef();
  max_group_diameter = need("max_group_diameter").toDouble();
  needs_lattice = nonlocal_kind == "efa" && max_group_diameter == 0.0;
  const auto metadata = need("metadata").toStringRef();
  references.emplace(metadata);
  name = json_text(metadata, "name");
  if (name.empty()) name = "unnamed";
  cutoff = need("cutoff").toDouble();
  elements = need("elements").toIntVector();
  n_layers = need("n_layers").toInt();
  features = need("features").toInt();
  chi_width = need("chi_width").toInt();
  chi_from_neighbors = need("chi_from_neighbors").toBool();
  has_charge_state = need("has_charge_state").toBool();
  has_zbl = need("has_zbl").toBool();
  has_long_range = need("has_long_range").toBool();
  singlets_only = need("singlets_only").toBool();
  energy_shift = need("energy_shift").toDouble();
  coulomb = long_range.coulomb;
  cutoff_lr = long_range.cutoff_lr;
}

/// Every part is there, and has the stages that will be called.
void Model::find_parts()
{
  const Part whole(artefact);
  representation = whole["representation"];
  energies = whole["energies"];
  charge_and_spin = representation["charge_and_spin"];
  reach = representation["reach"];
  physics = energies["physics"];
  layers = representation["layers"].list();
  if (!NONLOCAL.count(nonlocal_kind))
    throw std::runtime_error("this plugin has no non-local attention of kind '" + nonlocal_kind +
                             "'");
  const auto &nonlocal = NONLOCAL.at(nonlocal_kind);
  representation.require(REPRESENTATION);
  energies.require(ENERGIES);
  reach.require(nonlocal.reach);
  if (charge_and_spin.exists()) charge_and_spin.require(CHARGE_STATE);
  if (has_long_range) {
    physics.require(PHYSICS);
    physics["long_pairs"].require(LONG_PAIRS);
    physics["lattice_sum"].require(LATTICE_SUM);
  }
  if (static_cast<int64_t>(layers.size()) != n_layers)
    throw std::runtime_error("it has " + std::to_string(layers.size()) + " layers and states " +
                             std::to_string(n_layers));
  for (const auto &layer : layers) {
    layer.require(LAYER);
    layer.require(nonlocal.layer);
    if (!nonlocal.efa.empty()) layer["efa"].require(nonlocal.efa);
  }
  rows_type = layers.at(0).tuple_of("attend");
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
}

c10::IValue Model::rows(const Tensor &x, const Tensor &chi, const Tensor &r) const
{
  const auto none = at::empty({0, 3}, at::dtype(at::kDouble).device(device));
  return c10::ivalue::Tuple::createNamed({x, chi, r.defined() ? r : none}, rows_type);
}

std::tuple<Tensor, Tensor, Tensor> Model::heads(const Tensor &x, const Tensor &species) const
{
  if (energies.has("heads")) {    // one operator computes all three
    const auto found = energies.run("heads", x, species);
    const auto &elements = found.toTupleRef().elements();
    return {elements[0].toTensor(), elements[1].toTensor(), elements[2].toTensor()};
  }
  const auto learned = energies.run("readout", x, species).toTensor();
  if (!has_long_range) return {learned, {}, {}};
  return {learned, physics.run("raw_charges", x, species).toTensor(),
          physics.run("ratios", x, species).toTensor()};
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

TorchScope::TorchScope(at::Device device, int n_threads) :
    autograd(c10::AutogradState::get_tls_state())
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
  if (at::get_num_threads() != n_threads) at::set_num_threads(n_threads);
}

TorchScope::~TorchScope()
{
  c10::AutogradState::set_tls_state(autograd);
  torch::jit::setFusionStrategy(fusion);
}

Threads::Threads(MPI_Comm world, int wanted) : outer(at::get_num_threads())
{
  const auto cores = static_cast<int>(std::thread::hardware_concurrency());
  own = std::max(1, std::min(wanted, cores / on_node(world).n_ranks));
  MPI_Allreduce(MPI_IN_PLACE, &own, 1, MPI_INT, MPI_MIN, world);
}

Threads::~Threads()
{
  if (at::get_num_threads() != outer) at::set_num_threads(outer);
}

std::string cause_of(const std::exception &error)
{
  const auto *torch_error = dynamic_cast<const c10::Error *>(&error);
  std::string text = torch_error ? torch_error->what_without_backtrace() : error.what();
  // An error inside TorchScript ends with the line that names it.
  const auto inner = text.rfind("Error: ");
  if (inner != std::string::npos) text = text.substr(text.rfind('\n', inner) + 1);
  return text.substr(0, text.find('\n'));
}

}    // namespace So3k
