/* so3k-md: a model that all Systems and Contexts of a process share. MIT.
 *
 * openmm-torch copies the code of a module for each Context and compiles each copy. It does not
 * copy an object of a C++ class, so that the model is compiled once. Derivatives run without
 * Python's lock, as torch requires; some functions of OpenMM hold this lock when they compute
 * forces. */

#include <dlfcn.h>
#include <torch/custom_class.h>
#include <torch/script.h>

#include <algorithm>
#include <cstring>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

using at::Tensor;
using torch::jit::IValue;

namespace So3k {
namespace {

  constexpr std::size_t RECENT = 4;    // models that are kept although nothing uses them

  /// Releases Python's lock for the lifetime of this object, if this thread holds it.
  class WithoutLock {
   public:
    WithoutLock()
    {
      const auto locked = named<int (*)()>("PyGILState_Check");
      if (locked && locked()) thread = named<void *(*)()>("PyEval_SaveThread")();
    }
    ~WithoutLock()
    {
      if (thread) named<void (*)(void *)>("PyEval_RestoreThread")(thread);
    }
    WithoutLock(const WithoutLock &) = delete;
    WithoutLock &operator=(const WithoutLock &) = delete;

   private:
    template <typename Function> static Function named(const char *name)
    {
      return reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
    }

    void *thread = nullptr;
  };

  /// FNV-1a of 64 bits: detects damage by a disk or a network, not malice.
  int64_t checksum(const Tensor &file)
  {
    const auto *bytes = file.const_data_ptr<uint8_t>();
    uint64_t sum = 0xcbf29ce484222325;
    for (int64_t i = 0; i < file.numel(); ++i) sum = (sum ^ bytes[i]) * 0x100000001b3;
    return static_cast<int64_t>(sum);
  }

  bool same(const Tensor &a, const Tensor &b)
  {
    return a.numel() == b.numel() &&
        std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.numel()) == 0;
  }

  /// A file in memory, and its model, which is loaded at the first call.
  struct Loaded {
    explicit Loaded(Tensor bytes) : file(std::move(bytes)) {}

    /// The model on a device.
    torch::jit::Module &model(at::Device device)
    {
      const std::lock_guard<std::mutex> lock(mutex);
      auto &found = frozen[device.str()];
      if (!found) {
        const auto *bytes = static_cast<const char *>(file.const_data_ptr());
        std::istringstream stream(std::string(bytes, bytes + file.numel()));
        auto source = torch::jit::load(stream, device);
        source.eval();
        check_form(source.attr("form").toStringRef(), device);
        found = std::make_unique<torch::jit::Module>(
            torch::jit::freeze(source, std::vector<std::string>{"gradient"}));
      }
      return *found;
    }

    Tensor file;    // (bytes,), uint8

   private:
    static void check_form(const std::string &form, at::Device device)
    {
      TORCH_CHECK(form != (device.is_cpu() ? "kernels-cuda" : "kernels-cpu"),
                  "[so3k] this System was made with ", form, " and runs on ", device.str(),
                  ": make it again with this device, or with kernels = off");
    }

    std::mutex mutex;
    std::map<std::string, std::unique_ptr<torch::jit::Module>> frozen;    // by device
  };

  struct Models {
    std::mutex mutex;
    std::list<std::shared_ptr<Loaded>> recent;
    std::list<std::weak_ptr<Loaded>> known;

    /// The same object for the same content.
    std::shared_ptr<Loaded> find(const Tensor &file)
    {
      const std::lock_guard<std::mutex> lock(mutex);
      std::shared_ptr<Loaded> found;
      known.remove_if([](const auto &entry) { return entry.expired(); });
      for (const auto &entry : known)
        if (auto loaded = entry.lock(); loaded && same(loaded->file, file)) found = loaded;
      if (!found) {
        found = std::make_shared<Loaded>(file.clone());    // Python frees its own tensors
        known.push_back(found);
      }
      recent.remove(found);
      recent.push_front(found);
      if (recent.size() > RECENT) recent.pop_back();
      return found;
    }
  };

  /// Never destroyed: at the end of a process torch's own data may already be destroyed.
  Models &models()
  {
    static auto &all = *new Models;
    return all;
  }

  /// The content of a graph: tensors in the order of the fields, and the form and cutoff of the
  /// Coulomb energy.
  struct Flat {
    const c10::List<Tensor> &tensors;
    const std::string &coulomb;
    double cutoff;
    std::size_t next = 0;
  };

  /// The same as the named tuple that `type` is.
  IValue packed(const c10::TypePtr &type, Flat &flat)
  {
    if (type->kind() == c10::TypeKind::StringType) return flat.coulomb;
    if (type->kind() == c10::TypeKind::FloatType) return flat.cutoff;
    const auto tuple = type->cast<c10::TupleType>();
    if (!tuple) return flat.tensors.get(flat.next++);
    std::vector<IValue> fields;
    for (const auto &field : tuple->elements()) fields.push_back(packed(field, flat));
    return c10::ivalue::Tuple::createNamed(std::move(fields), tuple);
  }

  void unpack(const IValue &value, c10::List<Tensor> &flat)
  {
    if (value.isTensor()) {
      flat.push_back(value.toTensor());
      return;
    }
    for (const auto &field : value.toTupleRef().elements()) unpack(field, flat);
  }

  /// A model by its file, an exported one.
  class SharedModel : public torch::CustomClassHolder {
   public:
    explicit SharedModel(const Tensor &file) :
        loaded(models().find(file.to(at::kCPU, at::kByte).contiguous()))
    {
    }

    /// `So3krates.gradient` of a Graph. Graph and result are lists of their tensors; the form and
    /// cutoff of the Coulomb energy are separate arguments.
    c10::List<Tensor> gradient(const c10::List<Tensor> &graph, std::string coulomb, double cutoff)
    {
      const WithoutLock without_lock;
      const at::AutoGradMode with_gradients(true);
      auto method = loaded->model(graph.get(0).device()).get_method("gradient");
      Flat flat{graph, coulomb, cutoff};
      auto given = packed(method.function().getSchema().arguments().at(1).type(), flat);
      c10::List<Tensor> found;
      unpack(method({std::move(given)}), found);
      return found;
    }

    std::tuple<Tensor, int64_t> state() const { return {loaded->file, checksum(loaded->file)}; }

   private:
    std::shared_ptr<Loaded> loaded;
  };

  c10::intrusive_ptr<SharedModel> restored(const std::tuple<Tensor, int64_t> &state)
  {
    const auto file = std::get<0>(state).to(at::kCPU);    // torch loads all tensors onto one device
    TORCH_CHECK(
        checksum(file) == std::get<1>(state),
        "[so3k] the model in this System is damaged: its checksum differs from the one that was "
        "written with it; create the System again from the model file");
    return c10::make_intrusive<SharedModel>(file);
  }

}    // namespace
}    // namespace So3k

TORCH_LIBRARY_FRAGMENT(so3k, library)
{
  using So3k::SharedModel;
  library.class_<SharedModel>("SharedModel")
      .def(torch::init<Tensor>())
      .def("gradient", &SharedModel::gradient)
      .def_pickle([](const c10::intrusive_ptr<SharedModel> &self) { return self->state(); },
                  [](std::tuple<Tensor, int64_t> state) { return So3k::restored(state); });
}
