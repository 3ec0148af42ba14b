// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors

#include "scale.h"

#include <algorithm>
#include <array>

#include "../joined_axes.h"
#include "row_kernels.h"

namespace nec::cpu {
namespace {

constexpr int64_t kSegmentLength = 2048;  // elements, which stay in the first-level cache
// Below this many, waking a second thread costs more than it saves.
constexpr int64_t kMinElementsPerThread = 32768;

template <typename T>
void scale_as(const View& array, const JoinedAxes& axes, T factor, const Threads& threads) {
  const RowKernels<T>& kernels = row_kernels<T>();
  const JoinedAxes::Axis row = axes.axis[0];
  const int64_t segments_per_row = ceil_div(row.length, kSegmentLength);
  int64_t rows = 1;
  for (int k = 1; k < axes.count; ++k) rows *= axes.axis[k].length;
  const int64_t segments = rows * segments_per_row;
  const int workers =
      int(std::clamp<int64_t>(rows * row.length / kMinElementsPerThread, 1, threads.count));
  threads.run(workers, [&](int worker) {
    std::array<T, kSegmentLength> values;
    const int64_t end = segments * (worker + 1) / workers;
    for (int64_t i = segments * worker / workers; i < end; ++i) {
      const int64_t begin = i % segments_per_row * kSegmentLength;
      const int64_t length = std::min(kSegmentLength, row.length - begin);
      int64_t element = begin * row.stride;
      int64_t rest = i / segments_per_row;
      for (int k = 1; k < axes.count; rest /= axes.axis[k++].length)
        element += rest % axes.axis[k].length * axes.axis[k].stride;
      char* address = static_cast<char*>(array.data) + element * element_bytes(array.dtype);
      kernels.load[int(array.dtype)](address, row.stride, length, values.data());
      for (int64_t x = 0; x < length; ++x) values[size_t(x)] *= factor;
      kernels.store[int(array.dtype)](values.data(), length, address, row.stride);
    }
  });
}

}  // namespace

void scale(const View& array, const int64_t (&size)[kAxes], double factor, const Threads& threads) {
  if (factor == 1) return;
  const JoinedAxes axes = join_axes(array, size);
  if (array.dtype == DType::float64) {
    scale_as<double>(array, axes, factor, threads);
  } else {
    scale_as<float>(array, axes, float(factor), threads);
  }
}

}  // namespace nec::cpu
