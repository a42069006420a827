/* so3k-md: CUDA on a CPU, for tests. MIT.
 *
 * Each thread of a block is a fibre. A warp exchanges numbers at collectives, where all its threads
 * have to arrive at the same line. Also found: misaligned loads of several numbers, shared memory
 * that is read before it is written (filled with NaN before each block), results that depend on the
 * order of the threads (`seed`). */

#ifndef SO3K_EMULATE_H
#define SO3K_EMULATE_H

#undef _FORTIFY_SOURCE    // it refuses the jumps between stacks
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__ static __attribute__((section("so3k_shared")))
#define __launch_bounds__(...)

extern char __start_so3k_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_so3k_shared[] __attribute__((weak, visibility("hidden")));

struct Index {
  unsigned x = 0, y = 0, z = 0;
};
inline Index threadIdx, blockIdx, blockDim, gridDim;
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};

namespace emulate {

constexpr int WARP = 32;
constexpr std::size_t STACK = 128 * 1024;
enum class State { RUNS, AT_WARP, AT_BLOCK, DONE };

struct Fibre {
  ucontext_t first;
  jmp_buf here;
  std::unique_ptr<char[]> stack = std::make_unique<char[]>(STACK);
  bool started = false;
  State state = State::RUNS;
  int line = 0;           // of the collective at which it waits
  unsigned passed = 0;    // collectives of its warp
};

/// What the lanes of a warp give to one collective and to the next.
struct Mail {
  alignas(16) unsigned char bytes[2][WARP][32];
};

class Machine {
 public:
  std::function<void()> body;
  unsigned seed = 0;    // of the order in which threads run; 0: in that of their numbers
  long collectives = 0, atomics = 0;

  static Machine &now()
  {
    static Machine machine;
    return machine;
  }

  void run_block(int n_threads)
  {
    start(n_threads);
    std::vector<char> may_run(n_threads, 1);
    std::vector<int> turn(n_threads);
    for (int t = 0; t < n_threads; ++t) turn[t] = t;
    std::mt19937 order(seed + blockIdx.x);
    for (;;) {
      if (seed) std::shuffle(turn.begin(), turn.end(), order);
      for (const int t : turn)
        if (may_run[t] && fibres[t].state != State::DONE) {
          may_run[t] = 0;
          resume(t);
          if (!fault.empty()) throw std::runtime_error(std::exchange(fault, {}));
        }
      int done = 0, at_block = 0;
      bool released = false;
      for (int w = 0; w < n_threads / WARP; ++w) {
        if (release_warp(w, done, at_block)) {
          std::fill_n(may_run.begin() + w * WARP, WARP, 1);
          released = true;
        }
      }
      if (done == n_threads) return;
      if (at_block + done == n_threads) {
        if (done) throw std::runtime_error("some threads never reach a barrier of the block");
        std::fill(may_run.begin(), may_run.end(), 1);
      } else if (!released) {
        throw std::runtime_error("threads wait for one another");
      }
    }
  }

  void wait(State state, int line)
  {
    auto &fibre = fibres[current];
    fibre.state = state;
    fibre.line = line;
    if (!_setjmp(fibre.here)) _longjmp(scheduler, 1);
  }

  /// The place for this lane's number at the collective where its warp is.
  auto &mailbox()
  {
    ++collectives;
    return mail[current / WARP].bytes[fibres[current].passed++ & 1];
  }
  int lane() const { return current % WARP; }

 private:
  std::vector<Fibre> fibres;
  std::vector<Mail> mail;
  jmp_buf scheduler;
  int current = 0;
  std::string fault;    // of a thread

  static void entry()
  {
    auto &machine = now();
    try {
      machine.body();
    } catch (const std::exception &error) {    // cannot leave the stack of a fibre
      machine.fault = error.what();
    }
    machine.fibres[machine.current].state = State::DONE;
    _longjmp(machine.scheduler, 1);
  }

  void start(int n_threads)
  {
    while (static_cast<int>(fibres.size()) < n_threads) fibres.emplace_back();
    mail.resize(n_threads / WARP);
    if (__start_so3k_shared)
      std::memset(__start_so3k_shared, 0xff, __stop_so3k_shared - __start_so3k_shared);
    for (int t = 0; t < n_threads; ++t) {
      auto &fibre = fibres[t];
      fibre.started = false;
      fibre.state = State::RUNS;
      fibre.passed = 0;
      getcontext(&fibre.first);
      fibre.first.uc_stack.ss_sp = fibre.stack.get();
      fibre.first.uc_stack.ss_size = STACK;
      fibre.first.uc_link = nullptr;
      makecontext(&fibre.first, entry, 0);
    }
  }

  void resume(int t)
  {
    current = t;
    threadIdx.x = t;
    auto &fibre = fibres[t];
    fibre.state = State::RUNS;
    if (_setjmp(scheduler)) return;
    if (fibre.started) _longjmp(fibre.here, 1);
    fibre.started = true;
    setcontext(&fibre.first);
  }

  /// Whether all lanes of a warp wait at one collective; counts its other threads.
  bool release_warp(int w, int &done, int &at_block) const
  {
    int waiting = 0, line = -1;
    bool same = true;
    for (int t = w * WARP; t < (w + 1) * WARP; ++t) {
      const auto &fibre = fibres[t];
      done += fibre.state == State::DONE;
      at_block += fibre.state == State::AT_BLOCK;
      if (fibre.state != State::AT_WARP) continue;
      ++waiting;
      same = same && (line < 0 || line == fibre.line);
      line = fibre.line;
    }
    if (waiting && (waiting < WARP || !same))
      throw std::runtime_error("warp " + std::to_string(w) +
                               " diverges at the collective of line " + std::to_string(line));
    return waiting == WARP;
  }
};

/// What every lane of the warp gives; one call is one collective.
template <typename T> const T *everyone(const T &mine, int line)
{
  static_assert(sizeof(T) <= 32);
  auto &machine = Machine::now();
  auto &box = machine.mailbox();
  std::memcpy(box[machine.lane()], &mine, sizeof(T));
  machine.wait(State::AT_WARP, line);
  static T all[WARP];
  for (int lane = 0; lane < WARP; ++lane) std::memcpy(&all[lane], box[lane], sizeof(T));
  return all;
}

template <typename Kernel, typename Argument>
void launch(Kernel kernel, unsigned blocks, unsigned threads, const Argument &argument)
{
  if (threads % WARP) throw std::runtime_error("blocks have whole warps");
  auto &machine = Machine::now();
  machine.body = [&] { kernel(argument); };
  blockDim.x = threads;
  gridDim.x = blocks;
  for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) machine.run_block(threads);
}

template <typename Pointer, typename From> Pointer aligned(From at)
{
  if (reinterpret_cast<std::uintptr_t>(at) % sizeof(*Pointer()))
    throw std::runtime_error("an address is no multiple of " + std::to_string(sizeof(*Pointer())) +
                             " bytes");
  return reinterpret_cast<Pointer>(at);
}

/// Rounds to the nearest bfloat16, ties to even.
inline unsigned bf16(float x)
{
  unsigned bits;
  std::memcpy(&bits, &x, 4);
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
inline unsigned bf16_pair(float a, float b)
{
  return bf16(a) | bf16(b) << 16;
}
inline float of_bf16(unsigned pair, int which)
{
  const unsigned bits = which ? pair & 0xffff0000u : pair << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

struct Fragments {
  unsigned a[4], b[2];
};

/// c += a b of (16, 16) and (16, 8) numbers in bfloat16, in the layout of mma.sync.m16n8k16.
inline void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, int line)
{
  const auto *all = everyone(Fragments{{a[0], a[1], a[2], a[3]}, {b0, b1}}, line);
  const int lane = threadIdx.x % WARP, group = lane / 4, quad = lane % 4;
  for (int n = 0; n < 4; ++n) {
    const int column = 2 * quad + n % 2, lower = n / 2;
    float sum = c[n];
    for (int k = 0; k < 16; ++k) {
      const int from = (k % 8) / 2, half = k / 8;
      sum += of_bf16(all[4 * group + from].a[lower + 2 * half], k % 2) *
          of_bf16(all[4 * column + from].b[half], k % 2);
    }
    c[n] = sum;
  }
}

}    // namespace emulate

template <typename T> T __shfl_xor_sync(unsigned, T value, int mask, int line = __builtin_LINE())
{
  return emulate::everyone(value, line)[(threadIdx.x % 32) ^ mask];
}
template <typename T> T __shfl_sync(unsigned, T value, int from, int line = __builtin_LINE())
{
  return emulate::everyone(value, line)[from % 32];
}
inline unsigned __ballot_sync(unsigned, bool mine, int line = __builtin_LINE())
{
  const auto *all = emulate::everyone(mine, line);
  unsigned bits = 0;
  for (int lane = 0; lane < emulate::WARP; ++lane) bits |= static_cast<unsigned>(all[lane]) << lane;
  return bits;
}
inline bool __all_sync(unsigned, bool mine, int line = __builtin_LINE())
{
  return __ballot_sync(~0u, mine, line) == ~0u;
}
inline int __popc(unsigned bits)
{
  return __builtin_popcount(bits);
}
inline void __syncwarp(unsigned = ~0u, int line = __builtin_LINE())
{
  emulate::everyone(0, line);
}
inline void __syncthreads(int line = __builtin_LINE())
{
  emulate::Machine::now().wait(emulate::State::AT_BLOCK, line);
}
template <typename T> T atomicAdd(T *where, T value)
{
  ++emulate::Machine::now().atomics;
  const T before = *where;
  *where += value;
  return before;
}
template <typename T> T __ldg(const T *at)
{
  return *at;
}
inline float rsqrtf(float x)
{
  return 1 / std::sqrt(x);
}
inline float __expf(float x)
{
  return std::exp(x);
}
using std::max;
using std::min;

#endif
