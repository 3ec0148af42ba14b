// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The small kernels around a sweep: sums, and what is made of them. All sums are in float64, and in
// an order that depends on the sizes and on the GPU alone.
#pragma once

#include "strips.cuh"

namespace nec::cuda {

constexpr int kSumThreads = 256;

// The sum over the threads of a block, for thread 0. `shared` has room for one number per thread.
NEC_DEVICE double block_sum(double value, double* shared) {
  __syncthreads();  // whatever else was in there has been read
  const int thread = int(threadIdx.x);
  shared[thread] = value;
  for (int count = int(blockDim.x); count > 1;) {
    const int half = (count + 1) / 2;
    __syncthreads();
    if (thread < count - half) shared[thread] += shared[thread + half];
    count = half;
  }
  return thread == 0 ? shared[0] : 0;
}

// -------------------------------------------------------------------------------------------------
// All elements of an array
// -------------------------------------------------------------------------------------------------

// An array with as few axes as its strides allow: [...outer, row].
struct Rows {
  Array array;
  int size[kAxes];
  int strips;     // of a row
  int64_t count;  // of all rows

  // Calls body(row, x) for every strip that is this thread's, in a grid of any size.
  template <typename Body>
  NEC_DEVICE void for_each_strip(int strip, const Body& body) const {
    const int64_t step = int64_t(gridDim.x) * blockDim.x;
    for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
      int64_t rest = i / strips;
      char* row = array.data;
      for (int k = kAxes - 2; k >= 0 && rest > 0; --k) {
        row += rest % size[k] * array.stride[k];
        rest /= size[k];
      }
      body(row, int(i % strips) * strip);
    }
  }
};

struct MaskSumArguments {
  Rows mask;
  double* partials;  // [blocks]
};

template <typename T>
struct MaskSum {
  using Arguments = MaskSumArguments;
  static NEC_DEVICE void run(const Arguments& a, void* shared) {
    let_next_kernel_start();
    double sum = 0;
    a.mask.for_each_strip(Strip<T>::size, [&](const char* row, int x) {
      const int size = a.mask.size[kAxes - 1];
      const auto weight = load_mask<T>(a.mask.array, row, x, size);
      NEC_UNROLL
      for (int i = 0; i < Strip<T>::size; ++i)
        if (x + i < size) sum += double(weight.v[i]);
    });
    sum = block_sum(sum, static_cast<double*>(shared));
    if (threadIdx.x == 0) a.partials[blockIdx.x] = sum;
  }
};

// gradient *= upstream * factor
struct ScaleArguments {
  Rows gradient;
  Array upstream, factor;  // scalars; no factor: 1
};

template <typename T>
struct Scale {
  using Arguments = ScaleArguments;
  static NEC_DEVICE T scalar(const Array& a) {
    return a.dtype == DType::float64 ? T(*reinterpret_cast<const double*>(a.data))
                                     : T(*reinterpret_cast<const float*>(a.data));
  }
  static NEC_DEVICE void run(const Arguments& a, void*) {
    T scale = scalar(a.upstream);
    if (a.factor) scale *= scalar(a.factor);
    if (scale == 1) return;
    const Array& array = a.gradient.array;
    const int size = a.gradient.size[kAxes - 1];
    a.gradient.for_each_strip(Strip<T>::size, [&](char* row, int x) {
      Strip<T> strip = load_strip<T>(array, row, x, size);
      NEC_UNROLL
      for (int i = 0; i < Strip<T>::size; ++i) strip.v[i] *= scale;
      store_strip(array, row, x, 0, size, strip);
    });
  }
};

// -------------------------------------------------------------------------------------------------
// From partial sums to scalars, in one block
// -------------------------------------------------------------------------------------------------

NEC_DEVICE double sum_partials(const double* partials, int64_t count, double* shared) {
  wait_for_previous_kernel();
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) sum += partials[i];
  return block_sum(sum, shared);
}

// d loss / d (sum over voxels). A mean over no voxel is 0 with gradient 0.
struct Factor {
  double weight;
  bool mean;
  double count;        // that a mean divides by
  bool count_is_mask;  // it is the sum of the mask instead

  NEC_INLINE double value(double mask_sum) const {
    if (!mean) return weight;
    const double denominator = count_is_mask ? mask_sum : count;
    return denominator == 0 ? 0 : weight / denominator;
  }
};

struct FinishSumArguments {
  const double* partials;  // [count]
  int64_t count;
  double repeats;  // of what was summed
  double* sum;
};

struct FinishSum {
  using Arguments = FinishSumArguments;
  static NEC_DEVICE void run(const Arguments& a, void* shared) {
    const double sum = sum_partials(a.partials, a.count, static_cast<double*>(shared));
    if (threadIdx.x == 0) *a.sum = a.repeats * sum;
  }
};

struct FinishMaskArguments {
  const double* partials;  // [count], of the mask
  int64_t count;
  double repeats;  // of the mask over axes that it broadcasts
  Factor factor;
  double* scalars;  // [2]: the sum of the mask, the factor
};

struct FinishMask {
  using Arguments = FinishMaskArguments;
  static NEC_DEVICE void run(const Arguments& a, void* shared) {
    const double sum = a.repeats * sum_partials(a.partials, a.count, static_cast<double*>(shared));
    if (threadIdx.x != 0) return;
    a.scalars[0] = sum;
    a.scalars[1] = a.factor.value(sum);
  }
};

struct FinishLossArguments {
  const double* partials;  // [count], of mask * t^2
  int64_t count;
  const double* scalars;  // as above; null without a mask
  double voxels;          // the sum of the weights without a mask
  Factor factor;
  bool wide;  // the outputs are float64, else float32
  void *loss, *factor_out;
};

struct FinishLoss {
  using Arguments = FinishLossArguments;
  static NEC_DEVICE void run(const Arguments& a, void* shared) {
    const double sum = sum_partials(a.partials, a.count, static_cast<double*>(shared));
    if (threadIdx.x != 0) return;
    const double voxels = a.scalars ? a.scalars[0] : a.voxels;
    const double factor = a.scalars ? a.scalars[1] : a.factor.value(a.voxels);
    store(a, a.loss, factor * (voxels - 0.5 * sum));
    store(a, a.factor_out, factor);
  }
  static NEC_DEVICE void store(const FinishLossArguments& a, void* scalar, double value) {
    if (a.wide) {
      *static_cast<double*>(scalar) = value;
    } else {
      *static_cast<float*>(scalar) = float(value);
    }
  }
};

}  // namespace nec::cuda
