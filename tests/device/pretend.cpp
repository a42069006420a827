/* so3k-md: a pretended GPU, for tests of device handling on machines without one. MIT.
 *
 * Tensors of the device "pretend" lie in pages that the host may not touch: a kernel or an engine
 * that reads them by a pointer ends the process. Every operator runs on copies by the kernels of
 * the CPU. Tensors of two devices in one call are refused, as a GPU refuses them. Each operator for
 * which the host would have to wait for a GPU is reported: numbers and copies that go to the host,
 * and results whose size depends on data. */

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/InferSize.h>
#include <ATen/TensorUtils.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/csrc/jit/runtime/interpreter.h>
#include <torch/library.h>

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <utility>

using at::Tensor;
using c10::IntArrayRef;
using torch::jit::IValue;

namespace {
constexpr auto TYPE = c10::DeviceType::PrivateUse1;
constexpr auto KEY = c10::DispatchKey::PrivateUse1;
constexpr int UNWRITTEN = 0x7b;    // a byte of memory that nobody wrote; no number that one expects
using Report = void (*)(const char *what, const char *place);

// ---- memory

struct Pages {
  std::size_t bytes;
  int users;    // operators that work on them at the moment
};
std::mutex mutex;
std::map<const void *, Pages> memory;
std::size_t held = 0, most = 0;    // bytes now, and the largest number since it was last asked for
int kernels = 0;                   // that may touch everything at the moment

void protect(const void *at, const Pages &pages)
{
  const auto rights = pages.users + kernels > 0 ? PROT_READ | PROT_WRITE : PROT_NONE;
  TORCH_CHECK(mprotect(const_cast<void *>(at), pages.bytes, rights) == 0, "mprotect failed");
}

void release(void *at)
{
  if (!at) return;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto bytes = memory.at(at).bytes;
  held -= bytes;
  munmap(at, bytes);
  memory.erase(at);
}

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(std::size_t n) override
  {
    const c10::Device device(TYPE, 0);
    if (n == 0) return {nullptr, nullptr, &release, device};
    void *at = mmap(nullptr, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    TORCH_CHECK(at != MAP_FAILED, "no memory");
    std::memset(at, UNWRITTEN, n);
    const std::lock_guard<std::mutex> lock(mutex);
    most = std::max(most, held += n);
    protect(at, memory[at] = {n, 0});
    return {at, at, &release, device};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void *, const void *, std::size_t) const override { TORCH_CHECK(false); }
};
Memory allocator;
REGISTER_ALLOCATOR(TYPE, &allocator);

/// A tensor of the device as one of the host, which may be used while this object lives.
class Opened {
 public:
  explicit Opened(const Tensor &t) : tensor(t)
  {
    if (t.device().type() != TYPE) return;
    at = t.storage().data();
    use(1);
    const auto options = at::TensorOptions().dtype(t.dtype());
    tensor = at::from_blob(t.mutable_data_ptr(), t.sizes(), t.strides(), options);
  }
  ~Opened() { use(-1); }
  Opened(const Opened &) = delete;
  Opened &operator=(const Opened &) = delete;

  Tensor tensor;

 private:
  void use(int change)
  {
    if (!at) return;
    const std::lock_guard<std::mutex> lock(mutex);
    auto &pages = memory.at(at);
    pages.users += change;
    protect(at, pages);
  }
  const void *at = nullptr;
};

// ---- waits

Report report = nullptr;
bool places = false;    // whether to report them, too
thread_local bool in_operator = false;

/// While it lives, copies are those of an operator that runs on copies.
struct InOperator {
  InOperator() : outer(std::exchange(in_operator, true)) {}
  ~InOperator() { in_operator = outer; }
  InOperator(const InOperator &) = delete;
  InOperator &operator=(const InOperator &) = delete;
  const bool outer;
};

/// The lines of TorchScript that run in this thread, the innermost first.
std::string script_place()
{
  std::string found;
  for (const auto &entry : torch::jit::currentCallstack()) {
    const auto written = entry.range.findSourceRangeThatGenerated().value_or(entry.range);
    if (const auto at = written.file_line_col())
      found += std::get<0>(*at) + ":" + std::to_string(std::get<1>(*at)) + " ";
  }
  return found;
}

void wait_for(const std::string &what)
{
  if (in_operator || !report) return;
  report(what.c_str(), places ? script_place().c_str() : "");
}

bool is_mask(const IValue &value)
{
  return value.isTensor() && value.toTensor().defined() &&
      (value.toTensor().scalar_type() == at::kBool || value.toTensor().scalar_type() == at::kByte);
}

/// Whether the host must know numbers on the device before the operator can return.
bool reads(const c10::OperatorHandle &op, at::ArrayRef<IValue> arguments)
{
  const auto &name = op.schema().name();
  if (name == "aten::index" || name == "aten::index_put_" || name == "aten::_index_put_impl_") {
    for (const auto &index : arguments[1].toListRef())
      if (is_mask(index)) return true;
    return false;
  }
  if (name == "aten::repeat_interleave") return arguments.back().isNone();
  if (op.hasTag(at::Tag::dynamic_output_shape) || op.hasTag(at::Tag::data_dependent_output))
    return true;
  for (const auto &result : op.schema().returns())
    if (result.type()->kind() != c10::TypeKind::TensorType &&
        result.type()->kind() != c10::TypeKind::ListType)
      return true;
  return false;
}

// ---- operators

void check_device(const c10::OperatorHandle &op, const Tensor &t)
{
  TORCH_CHECK(!t.defined() || t.device().type() == TYPE || t.dim() == 0, op.schema().name(),
              ": expected all tensors on one device, one of shape ", t.sizes(), " is on the CPU");
}

/// Copies of the tensors of an optional list, which `cpu_fallback` leaves on the device.
c10::List<std::optional<Tensor>> copies(const c10::OperatorHandle &op, const IValue &list)
{
  c10::List<std::optional<Tensor>> found;
  for (const auto &element : list.toListRef()) {
    if (element.isTensor()) check_device(op, element.toTensor());
    found.push_back(element.isTensor() ? std::optional(element.toTensor().cpu()) : std::nullopt);
  }
  return found;
}

void on_copies(const c10::OperatorHandle &op, torch::jit::Stack *stack)
{
  const auto arguments = torch::jit::last(*stack, op.schema().arguments().size());
  if (reads(op, arguments)) wait_for(op.schema().name());
  const c10::impl::ExcludeDispatchKeyGuard no_gradient(c10::autograd_dispatch_keyset);
  const InOperator inside;
  for (auto at = stack->size() - arguments.size(); at < stack->size(); ++at) {
    auto &value = (*stack)[at];
    if (value.isTensor()) check_device(op, value.toTensor());
    if (value.isTensorList())
      for (const auto &t : value.toTensorVector()) check_device(op, t);
    const auto element = value.isList() ? value.toList().elementType() : nullptr;
    if (element && element->kind() == c10::TypeKind::OptionalType) value = copies(op, value);
  }
  at::native::cpu_fallback(op, stack);
}

Tensor empty(IntArrayRef size, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout>,
             std::optional<c10::Device>, std::optional<bool>,
             std::optional<c10::MemoryFormat> format)
{
  const auto type = c10::dtype_or_default(dtype);
  return at::detail::empty_generic(size, &allocator, c10::DispatchKeySet(KEY), type, format);
}

Tensor empty_strided(IntArrayRef size, IntArrayRef stride, std::optional<c10::ScalarType> dtype,
                     std::optional<c10::Layout>, std::optional<c10::Device>, std::optional<bool>)
{
  const auto type = c10::dtype_or_default(dtype);
  return at::detail::empty_strided_generic(size, stride, &allocator, c10::DispatchKeySet(KEY),
                                           type);
}

Tensor copy_across(const Tensor &from, const Tensor &to, bool)
{
  if (to.device().is_cpu()) wait_for("copy to the host");
  if (from.device().is_cpu() && from.dim() > 0) wait_for("copy to the device");
  Opened source(from), target(to);
  target.tensor.copy_(source.tensor);
  return to;
}

Tensor copy_and_resize(const Tensor &from, const Tensor &to)
{
  // views have their size already, and must not be resized
  if (to.sizes() != from.sizes()) to.resize_(from.sizes());
  return copy_across(from, to, false);
}

at::Scalar number(const Tensor &t)
{
  wait_for("number to the host");
  return at::_local_scalar_dense(Opened(t).tensor);
}

Tensor strided(const Tensor &t, IntArrayRef size, IntArrayRef stride, std::optional<int64_t> offset)
{
  auto made = at::detail::make_tensor<at::TensorImpl>(
      c10::TensorImpl::VIEW, c10::Storage(t.storage()), t.key_set(), t.dtype());
  made.unsafeGetTensorImpl()->set_storage_offset(offset.value_or(t.storage_offset()));
  made.unsafeGetTensorImpl()->set_sizes_and_strides(size, stride);
  return made;
}

Tensor reshaped(const Tensor &t, IntArrayRef size, IntArrayRef stride)
{
  return strided(t, size, stride, t.storage_offset());
}

Tensor view(const Tensor &t, IntArrayRef size)
{
  const auto whole = at::infer_size_dv(size, t.numel());
  const auto stride = at::detail::computeStride(t.sizes(), t.strides(), whole);
  TORCH_CHECK(stride.has_value(), "a view of this size is impossible");
  return strided(t, whole, *stride, t.storage_offset());
}

const Tensor &resize(const Tensor &t, IntArrayRef size, std::optional<c10::MemoryFormat>)
{
  const auto numbers = c10::multiply_integers(size) + t.storage_offset();
  const std::size_t bytes = numbers * t.itemsize();
  auto storage = t.storage();
  if (bytes > storage.nbytes()) {
    storage.set_data_ptr_noswap(allocator.allocate(bytes));
    storage.set_nbytes(bytes);
  }
  t.unsafeGetTensorImpl()->set_sizes_contiguous(size);
  return t;
}

Tensor &set_storage(Tensor &t, c10::Storage storage, int64_t offset, IntArrayRef size,
                    IntArrayRef stride)
{
  t.unsafeGetTensorImpl()->set_storage_keep_dtype(std::move(storage));
  t.unsafeGetTensorImpl()->set_storage_offset(offset);
  t.unsafeGetTensorImpl()->set_sizes_and_strides(size, stride);
  return t;
}

// ---- what torch asks of a device

struct Guard final : c10::impl::DeviceGuardImplInterface {
  Guard() = default;
  explicit Guard(c10::DeviceType) {}
  c10::DeviceType type() const override { return TYPE; }
  c10::Device exchangeDevice(c10::Device) const override { return {TYPE, 0}; }
  c10::Device getDevice() const override { return {TYPE, 0}; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device device) const noexcept override
  {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void **, const c10::Stream &, c10::DeviceIndex, c10::EventFlag) const override {}
  void block(void *, const c10::Stream &) const override {}
  bool queryEvent(void *) const override { return true; }
  void destroyEvent(void *, c10::DeviceIndex) const noexcept override {}
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  bool isPinnedPtr(const void *) const override { return false; }
};

[[maybe_unused]] const bool registered = [] {
  static Hooks hooks;
  at::RegisterPrivateUse1HooksInterface(&hooks);
  c10::register_privateuse1_backend("pretend");
  return true;
}();
}    // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, m)
{
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&on_copies>());
}

/// As torch itself has it for the devices that it knows: operators without a derivative of their
/// own.
TORCH_LIBRARY_IMPL(_, AutogradPrivateUse1, m)
{
  m.fallback(torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m)
{
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_across);
  m.impl("_copy_from_and_resize", &copy_and_resize);
  m.impl("_local_scalar_dense", &number);
  m.impl("as_strided", &strided);
  m.impl("_reshape_alias", &reshaped);
  m.impl("view", &view);
  m.impl("resize_", &resize);
  m.impl("set_.source_Storage_storage_offset", &set_storage);
}

extern "C" {
/// All memory of the device becomes accessible to the host, or is closed again; for fake drivers,
/// around a kernel.
void so3k_pretend_open(bool open)
{
  const std::lock_guard<std::mutex> lock(mutex);
  kernels += open ? 1 : -1;
  for (const auto &[at, pages] : memory) protect(at, pages);
}

/// The largest number of bytes of tensors on the device since the last call.
std::size_t so3k_pretend_most()
{
  const std::lock_guard<std::mutex> lock(mutex);
  return std::exchange(most, held);
}

/// A function that hears of each wait: the operator, and with `with_places` the lines of
/// TorchScript, innermost first. torch cannot tell those of frozen modules, and ends the process if
/// it is asked.
void so3k_pretend_report(Report to, bool with_places)
{
  report = to;
  places = with_places;
}
}
