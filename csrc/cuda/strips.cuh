// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// Strips of a row: what one thread reads, computes and writes. And arrays of any dtype and layout
// in device memory, a strip at a time.
#pragma once

#include <type_traits>

#include "../math/convert.h"
#include "../problem.h"

#if defined(__CUDACC__)
#define NEC_DEVICE __device__ __forceinline__
#else
#define NEC_DEVICE inline
#endif

namespace nec::cuda {

// The small kernel after a large one is launched while that still runs, where a GPU can do so. The
// large one says at its start that it may, the small one waits before it reads anything.
NEC_DEVICE void let_next_kernel_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}
NEC_DEVICE void wait_for_previous_kernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
}

// 16 bytes: the most that a thread reads or writes with one instruction.
template <typename T>
struct alignas(16) Strip {
  static constexpr int size = 16 / sizeof(T);
  T v[size];
};

// A View whose strides are in bytes.
struct Array {
  char* data;
  DType dtype;
  int64_t stride[kAxes];
  bool whole_strips;  // every strip of a row is contiguous and aligned to its size

  NEC_DEVICE explicit operator bool() const { return data != nullptr; }
  // Of the first element of a row.
  NEC_DEVICE char* row(int64_t sample, int64_t channel, int z, int y) const {
    return data + sample * stride[0] + channel * stride[1] + int64_t(z) * stride[2] +
           int64_t(y) * stride[3];
  }
};

inline Array make_array(const View& view, int strip_voxels) {
  const int64_t bytes = element_bytes(view.dtype);
  Array a{static_cast<char*>(view.data), view.dtype, {}, view.stride[kAxes - 1] == 1};
  a.whole_strips &= reinterpret_cast<uintptr_t>(view.data) % (bytes * strip_voxels) == 0;
  for (int k = 0; k < kAxes; ++k) {
    a.stride[k] = view.stride[k] * bytes;
    if (k < kAxes - 1) a.whole_strips &= view.stride[k] % strip_voxels == 0;
  }
  return a;
}

constexpr int kLine = 128;  // bytes of memory that are cached together

// Asks for a line that will be read later.
NEC_DEVICE void prefetch(const char* address) {
#if defined(__CUDA_ARCH__)
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
#else
  __builtin_prefetch(address);
#endif
}

// A strip as it lies in memory.
template <typename S, int N>
struct alignas(sizeof(S) * N) Packed {
  S v[N];
};

NEC_DEVICE int clamp(int i, int low, int high) { return i < low ? low : i > high ? high : i; }

// Elements x, x + 1, ... of a row of `size`; beyond its end the last one.
template <typename S, int N>
NEC_DEVICE Packed<S, N> load_packed(const Array& a, const char* row, int x, int size) {
  if (a.whole_strips && x + N <= size)
    return *reinterpret_cast<const Packed<S, N>*>(row + x * int64_t(sizeof(S)));
  Packed<S, N> packed;
  NEC_UNROLL
  for (int i = 0; i < N; ++i) {
    const char* element = row + (x + i < size ? x + i : size - 1) * a.stride[kAxes - 1];
    packed.v[i] = *reinterpret_cast<const S*>(element);
  }
  return packed;
}

template <typename T, typename S>
NEC_DEVICE Strip<T> convert(const Packed<S, Strip<T>::size>& packed) {
  Strip<T> strip;
  NEC_UNROLL
  for (int i = 0; i < Strip<T>::size; ++i) strip.v[i] = load_as<T>(packed.v[i]);
  return strip;
}

template <typename T>
NEC_DEVICE Strip<T> load_strip(const Array& a, const char* row, int x, int size) {
  constexpr int N = Strip<T>::size;
  switch (a.dtype) {
    case DType::float64: return convert<T>(load_packed<double, N>(a, row, x, size));
    case DType::float16: return convert<T>(load_packed<Half, N>(a, row, x, size));
    case DType::bfloat16: return convert<T>(load_packed<BFloat16, N>(a, row, x, size));
    case DType::uint8: return convert<T>(load_packed<uint8_t, N>(a, row, x, size));
    case DType::float32: break;
  }
  return convert<T>(load_packed<float, N>(a, row, x, size));
}

// A strip of any dtype that may still be on its way. What has been requested goes straight to where
// it stays, in one of three forms: were they one, it would have to be moved there, and to move it
// is to wait for it. `Image`: never wider than the arithmetic, and no uint8.
template <typename T, bool Image>
class Arriving {
 public:
  NEC_DEVICE void request(const Array& a, const char* row, int x, int size) {
    whole_ = a.whole_strips && x + N <= size;
    if (a.dtype == DType::float32) return load<float>(a, row, x, size);
    if (kDouble && a.dtype == DType::float64) return load<double>(a, row, x, size);
    if (!Image && a.dtype == DType::uint8) return load<uint8_t>(a, row, x, size);
    load<uint16_t>(a, row, x, size);  // both half types
  }

  NEC_DEVICE Strip<T> arrive(DType dtype) const {
    if (dtype == DType::float32) return as<float>();
    if (kDouble && dtype == DType::float64) return as<double>();
    if (!Image && dtype == DType::uint8) return as<uint8_t>();
    return dtype == DType::float16 ? as<Half>() : as<BFloat16>();
  }

 private:
  static constexpr bool kDouble = !Image || sizeof(T) == 8;
  static constexpr int N = Strip<T>::size;
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  // What one instruction can read of a whole strip, and nothing wider than the arithmetic.
  template <typename S>
  static constexpr int kBytes = sizeof(S) <= sizeof(T) && N * sizeof(S) >= 4 ? N * sizeof(S) : 0;

  template <typename S>
  NEC_DEVICE void load(const Array& a, const char* row, int x, int size) {
    if (kBytes<S> > 0 && whole_) {
      const char* strip = row + x * int64_t(sizeof(S));
      if constexpr (kBytes<S> == 16) wide_ = *reinterpret_cast<const Packed<uint32_t, 4>*>(strip);
      if constexpr (kBytes<S> == 8) narrow_ = *reinterpret_cast<const Packed<uint32_t, 2>*>(strip);
      if constexpr (kBytes<S> == 4) elements_[0] = *reinterpret_cast<const uint32_t*>(strip);
      return;
    }
    NEC_UNROLL
    for (int i = 0; i < N; ++i) {
      const int at = x + i < size ? x + i : size - 1;
      const S element = *reinterpret_cast<const S*>(row + at * a.stride[kAxes - 1]);
      if constexpr (sizeof(S) > sizeof(T)) {
        elements_[i] = float_to_bits(float(element));
      } else if constexpr (sizeof(S) == sizeof(Bits)) {
        __builtin_memcpy(&elements_[i], &element, sizeof element);
      } else if constexpr (sizeof(S) == 4) {
        elements_[i] = float_to_bits(element);
      } else {
        elements_[i] = element;
      }
    }
  }

  template <typename S>
  NEC_DEVICE Strip<T> as() const {
    // What is wider than the arithmetic has been converted already.
    using Stored = std::conditional_t<(sizeof(S) > sizeof(T)), T, S>;
    Packed<Stored, N> packed;
    if (kBytes<S> > 0 && whole_) {
      if constexpr (kBytes<S> == 16) __builtin_memcpy(&packed, &wide_, sizeof packed);
      if constexpr (kBytes<S> == 8) __builtin_memcpy(&packed, &narrow_, sizeof packed);
      if constexpr (kBytes<S> == 4) __builtin_memcpy(&packed, &elements_[0], sizeof packed);
    } else {
      NEC_UNROLL
      for (int i = 0; i < N; ++i) __builtin_memcpy(&packed.v[i], &elements_[i], sizeof(Stored));
    }
    return convert<T>(packed);
  }

  Packed<uint32_t, 4> wide_;
  Packed<uint32_t, 2> narrow_;
  Bits elements_[N];
  bool whole_;
};

template <typename T>
NEC_DEVICE T not_a_number() {
  return T(__builtin_nanf(""));
}

// A negative weight, and a NaN, become NaN.
template <typename T>
NEC_DEVICE Strip<T> checked_mask(Strip<T> weight) {
  NEC_UNROLL
  for (int i = 0; i < Strip<T>::size; ++i)
    if (!(weight.v[i] >= 0)) weight.v[i] = not_a_number<T>();
  return weight;
}

// Writes those elements that lie in low <= x < high.
template <typename S, typename T>
NEC_DEVICE void store_strip_as(const Array& a, char* row, int x, int low, int high,
                               const Strip<T>& strip) {
  constexpr int N = Strip<T>::size;
  if (a.whole_strips && x >= low && x + N <= high) {
    Packed<S, N> packed;
    NEC_UNROLL
    for (int i = 0; i < N; ++i) store_as(strip.v[i], packed.v[i]);
    *reinterpret_cast<Packed<S, N>*>(row + x * int64_t(sizeof(S))) = packed;
  } else {
    NEC_UNROLL
    for (int i = 0; i < N; ++i) {
      if (x + i < low || x + i >= high) continue;
      char* element = row + (x + i) * a.stride[kAxes - 1];
      store_as(strip.v[i], *reinterpret_cast<S*>(element));
    }
  }
}

template <typename T>
NEC_DEVICE void store_strip(const Array& a, char* row, int x, int low, int high,
                            const Strip<T>& strip) {
  switch (a.dtype) {
    case DType::float64: return store_strip_as<double>(a, row, x, low, high, strip);
    case DType::float16: return store_strip_as<Half>(a, row, x, low, high, strip);
    case DType::bfloat16: return store_strip_as<BFloat16>(a, row, x, low, high, strip);
    default: break;
  }
  store_strip_as<float>(a, row, x, low, high, strip);
}

}  // namespace nec::cuda
