// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The instructions of PTX that nvcc makes of csrc/cuda, as C++ functions (translate.py): the
// compiled kernels are tested without a GPU. Threads, barriers, shared memory and copies that do
// not wait are those of cuda_on_cpu/cuda_runtime.h, which includes this file. Aborts where a GPU
// would fault, or where chance would decide:
//
//   - an access that is not aligned to its size, or is outside of shared memory; the address
//     sanitizer is asked about arrays;
//   - two threads at one place of shared memory between two barriers, one of which writes;
//   - a kernel that was started early and looks at an array before it waits.
//
// A third of the results of approximate instructions are off by a unit in the last place, which all
// may be. (If all were, gradients of images near the largest float would be wrong by 5e-6 of the
// largest gradient, where the tests allow 2e-6.)
#pragma once

#include <dlfcn.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>

#include "math/convert.h"

// Null without the address sanitizer, which is not asked for in translations: they are large.
extern "C" __attribute__((weak)) void* __asan_region_is_poisoned(void* begin, size_t size);

namespace ptx {

using pred = bool;
using u8 = uint8_t;
using u16 = uint16_t;
using b16 = u16;
using u32 = uint32_t;
using b32 = u32;
using u64 = uint64_t;
using b64 = u64;
using s16 = int16_t;
using s32 = int32_t;
using s64 = int64_t;
using f16 = nec::Half;
using f32 = float;
using f64 = double;

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "thread %u of block %u: %s\n", threadIdx.x, blockIdx.x, what);
  std::abort();
}

// -------------------------------------------------------------------------------------------------
// Registers: bits, which each instruction takes for numbers of its own type
// -------------------------------------------------------------------------------------------------

// Takes the low bits of a register, or of a number in the program, for a number of type T.
template <typename T, typename Bits>
T get(Bits bits) {
  static_assert(sizeof(T) <= sizeof bits);
  if constexpr (std::is_same_v<T, bool>) return bits != 0;
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// The rest of a wider register is the sign, or zeros.
template <typename Register, typename T>
void put(Register& to, T value) {
  if constexpr (sizeof to == sizeof value) {
    std::memcpy(&to, &value, sizeof to);
  } else {
    static_assert(sizeof to > sizeof value && std::is_integral_v<T>);
    to = Register(std::conditional_t<std::is_signed_v<T>, s64, u64>(value));
  }
}

#define NEC_PTX_1(name, expression)             \
  template <typename T, typename D, typename A> \
  void name##_(D& to, A first) {                \
    const T a = get<T>(first);                  \
    put(to, T(expression));                     \
  }
#define NEC_PTX_2(name, expression)                         \
  template <typename T, typename D, typename A, typename B> \
  void name##_(D& to, A first, B second) {                  \
    const T a = get<T>(first), b = get<T>(second);          \
    put(to, T(expression));                                 \
  }
#define NEC_PTX_3(name, expression)                                     \
  template <typename T, typename D, typename A, typename B, typename C> \
  void name##_(D& to, A first, B second, C third) {                     \
    const T a = get<T>(first), b = get<T>(second), c = get<T>(third);   \
    put(to, T(expression));                                             \
  }
#define NEC_PTX_TEST(name, expression)               \
  template <typename T, typename A, typename B>      \
  void setp_##name##_(pred& to, A first, B second) { \
    const T a = get<T>(first), b = get<T>(second);   \
    to = expression;                                 \
  }

NEC_PTX_1(mov, a)
NEC_PTX_1(cvta_to_global, a)
NEC_PTX_1(neg, -a)
NEC_PTX_1(not, ~a)
NEC_PTX_1(rcp_rn, 1 / a)
NEC_PTX_1(sqrt_rn, std::sqrt(a))
NEC_PTX_2(add, a + b)
NEC_PTX_2(sub, a - b)
NEC_PTX_2(mul, (a * b))
NEC_PTX_2(mul_lo, (a * b))
NEC_PTX_2(div, a / b)
NEC_PTX_2(div_rn, a / b)
NEC_PTX_2(and, (a & b))
NEC_PTX_2(or, a | b)
NEC_PTX_2(xor, a ^ b)
NEC_PTX_2(min, a < b ? a : b)
NEC_PTX_2(max, a > b || b != b ? a : b)
NEC_PTX_3(mad_lo, (a * b + c))
NEC_PTX_3(fma_rn, std::fma(a, b, c))
NEC_PTX_TEST(eq, a == b)
NEC_PTX_TEST(ne, (a < b || a > b))
NEC_PTX_TEST(lt, a < b)
NEC_PTX_TEST(le, a <= b)
NEC_PTX_TEST(gt, a > b)
NEC_PTX_TEST(ge, a >= b)
// True for a NaN as well.
NEC_PTX_TEST(neu, a != b)
NEC_PTX_TEST(ltu, !(a >= b))
NEC_PTX_TEST(leu, !(a > b))
NEC_PTX_TEST(gtu, !(a <= b))
NEC_PTX_TEST(geu, !(a < b))

// A shift may be by more bits than a register has.
template <typename T, typename D, typename A, typename B>
void shl_(D& to, A first, B second) {
  const u32 bits = get<u32>(second);
  put(to, T(bits < 8 * sizeof(T) ? get<T>(first) << bits : 0));
}
template <typename T, typename D, typename A, typename B>
void shr_(D& to, A first, B second) {
  const u32 bits = get<u32>(second);
  const T from = get<T>(first);
  put(to, T(bits < 8 * sizeof(T) ? from >> bits : from < 0 ? -1 : 0));
}
template <typename T, typename D, typename A, typename B>
void mul_wide_(D& to, A first, B second) {
  using Wide = std::conditional_t<std::is_signed_v<T>, s64, u64>;
  to = D(Wide(get<T>(first)) * Wide(get<T>(second)));
}
template <typename T, typename D, typename A, typename B>
void selp_(D& to, A first, B second, pred condition) {
  put(to, condition ? get<T>(first) : get<T>(second));
}
template <typename T, typename A>
void unpack_(u16& low, u16& high, A from) {
  low = u16(get<T>(from));
  high = u16(get<T>(from) >> 16);
}

template <typename To, typename From, typename D, typename A>
void cvt_(D& to, A first) {
  const From from = get<From>(first);
  if constexpr (std::is_same_v<From, f16>) {
    put(to, nec::to_float(from));
  } else {
    put(to, To(from));
  }
}
template <typename To, typename From, typename D, typename A>
void cvt_rn_(D& to, A first) {
  if constexpr (std::is_same_v<To, f16>) {
    put(to, nec::to_half(first));
  } else {
    cvt_<To, From>(to, first);
  }
}

// -------------------------------------------------------------------------------------------------
// Approximations
// -------------------------------------------------------------------------------------------------

inline f32 flushed(f32 x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

// Moved by a quarter to a half of a unit before it is rounded, the same for the same operand.
inline f32 approximate(f64 exact, f32 operand) {
  const u32 hash = get<u32>(operand) * 2654435769u;
  return f32(exact * (1 + (hash >> 31 ? 0x1p-25 : -0x1p-25)));
}
template <typename T>
void rcp_approx_(f32& to, f32 x) {
  to = approximate(1 / f64(x), x);
}
template <typename T>
void rcp_approx_ftz_(f32& to, f32 x) {
  to = flushed(approximate(1 / f64(flushed(x)), x));
}
template <typename T>
void sqrt_approx_ftz_(f32& to, f32 x) {
  to = flushed(approximate(std::sqrt(f64(flushed(x))), x));
}

// -------------------------------------------------------------------------------------------------
// Memory. Addresses come first.
// -------------------------------------------------------------------------------------------------

constexpr u32 kSharedMemory = 1024;  // its address, which has 32 bits
constexpr unsigned kSeveral = ~0u;   // threads

// Who has been at a byte of shared memory, and after how many barriers.
struct Visit {
  unsigned thread = 0, barriers = 0;
};
struct Visits {
  Visit write, read;
};
inline std::vector<Visits> visits;
inline bool early;         // the kernel was started before the one before it had ended
inline bool waited[1024];  // until then, each thread

inline char* shared_at(u64 address) {
  return cuda_on_cpu::shared_memory + (address - kSharedMemory);
}

inline void visit_shared(u64 address, size_t size, bool writes) {
  if (address % size) fail("an access to shared memory is not aligned");
  const u64 first = address - kSharedMemory;
  if (first >= visits.size() || size > visits.size() - first)
    fail("an access is outside of shared memory");
  const unsigned thread = threadIdx.x, barriers = cuda_on_cpu::barriers_passed;
  const auto by_other = [&](const Visit& before) {
    return before.barriers == barriers && before.thread != thread;
  };
  for (u64 at = first; at < first + size; ++at) {
    Visits& of = visits[at];
    if (by_other(of.write) || (writes && by_other(of.read))) fail("a race in shared memory");
    if (writes) {
      of.write = {thread, barriers};
    } else {
      of.read = {by_other(of.read) ? kSeveral : thread, barriers};
    }
  }
}

inline void visit_array(u64 address, size_t size) {
  if (address % size) fail("an access to an array is not aligned");
  if (early && !waited[threadIdx.x]) fail("an array is looked at before its kernel has ended");
  if (__asan_region_is_poisoned &&
      __asan_region_is_poisoned(reinterpret_cast<void*>(address), size))
    fail("an access is outside of an array");
}

template <typename T, typename... D>
void read(const char* from, D&... to) {
  const auto next = [&from] {
    T value;
    std::memcpy(&value, from, sizeof value);
    from += sizeof value;
    return value;
  };
  (put(to, next()), ...);
}
template <typename T, typename... A>
void write(char* to, A... from) {
  const auto next = [&to](T value) {
    std::memcpy(to, &value, sizeof value);
    to += sizeof value;
  };
  (next(get<T>(from)), ...);
}

template <typename T, typename... D>
void ld_param_(u64 address, D&... to) {
  read<T>(reinterpret_cast<const char*>(address), to...);
}
template <typename T, typename... D>
void ld_global_(u64 address, D&... to) {
  visit_array(address, sizeof(T) * sizeof...(to));
  read<T>(reinterpret_cast<const char*>(address), to...);
}
template <typename T, typename... A>
void st_global_(u64 address, A... values) {
  visit_array(address, sizeof(T) * sizeof...(values));
  write<T>(reinterpret_cast<char*>(address), values...);
}
template <typename T, typename... D>
void ld_shared_(u64 address, D&... to) {
  visit_shared(address, sizeof(T) * sizeof...(to), false);
  read<T>(shared_at(address), to...);
}
template <typename T, typename... A>
void st_shared_(u64 address, A... values) {
  visit_shared(address, sizeof(T) * sizeof...(values), true);
  write<T>(shared_at(address), values...);
}

// A copy may write at any time from the call to the wait: both are visits.
inline void cp_async_ca_shared_global_(u64 to, u64 from, int size) {
  visit_array(from, size_t(size));
  visit_shared(to, size_t(size), true);
  cuda_on_cpu::begin_copy(shared_at(to), reinterpret_cast<const void*>(from), size_t(size));
}
inline void cp_async_cg_shared_global_L2_128B_(u64 to, u64 from, int size) {
  cp_async_ca_shared_global_(to, from, size);
}
inline void cp_async_commit_group_() { nec::cuda::commit_copies(); }
inline void cp_async_wait_group_(int pending) {
  cuda_on_cpu::end_copies(pending, [](const cuda_on_cpu::Copy& copy) {
    const char* const to = static_cast<const char*>(copy.to);
    visit_shared(u64(to - cuda_on_cpu::shared_memory) + kSharedMemory, copy.bytes, true);
  });
}

inline void bar_sync_(int) { __syncthreads(); }
inline void griddepcontrol_launch_dependents_() {}
inline void griddepcontrol_wait_() { waited[threadIdx.x] = true; }

// -------------------------------------------------------------------------------------------------
// Launches
// -------------------------------------------------------------------------------------------------

// A kernel as translate.py wrote it.
using Translated = void (*)(const char* arguments);

// The translation of a kernel that the C++ compiler has compiled too, by their common name.
inline Translated find(void* kernel) {
  static std::map<void*, Translated> known;
  Translated& translated = known[kernel];
  if (translated) return translated;
  Dl_info info{};
  if (!dladdr(kernel, &info) || !info.dli_sname) fail("a kernel without a name");
  translated = reinterpret_cast<Translated>(
      dlsym(RTLD_DEFAULT, (std::string("ptx_") + info.dli_sname).c_str()));
  if (!translated) fail(info.dli_sname);
  return translated;
}

inline void begin(size_t shared_bytes, bool starts_early) {
  visits.assign(shared_bytes, {});
  early = starts_early;
  std::fill(std::begin(waited), std::end(waited), false);
}

}  // namespace ptx
