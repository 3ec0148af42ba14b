// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors

#include "scale.h"

#include <algorithm>
#include <array>
#include <vector>

#include "row_kernels.h"
#include "tiles.h"

namespace nec::cpu {
namespace {

struct Axis {
  int64_t size, stride;
};

// The axes in the order of the strides, those that follow each other in memory joined: a gradient
// without gaps becomes one row.
std::vector<Axis> joined_axes(const View& array, const int64_t (&size)[kAxes]) {
  std::vector<Axis> axes;
  for (int k = 0; k < kAxes; ++k) axes.push_back({size[k], array.stride[k]});
  std::stable_sort(axes.begin(), axes.end(),
                   [](const Axis& a, const Axis& b) { return a.stride > b.stride; });
  std::vector<Axis> joined{{1, 0}};
  for (const Axis& axis : axes) {
    if (axis.size == 1) continue;
    Axis& last = joined.back();
    if (last.size == 1) {
      last = axis;
    } else if (last.stride == axis.size * axis.stride) {
      last = {last.size * axis.size, axis.stride};
    } else {
      joined.push_back(axis);
    }
  }
  return joined;
}

constexpr int64_t kPieceLength = 2048;  // elements, which stay in the first-level cache
// Below this many, waking a second thread costs more than it saves.
constexpr int64_t kMinElementsPerThread = 32768;

template <typename T>
void scale_as(const View& array, const std::vector<Axis>& axes, T factor, const Threads& threads) {
  const RowKernels<T>& kernels = row_kernels<T>();
  const Axis row = axes.back();
  const int64_t pieces_per_row = ceil_div(row.size, kPieceLength);
  int64_t rows = 1;
  for (size_t k = 0; k + 1 < axes.size(); ++k) rows *= axes[k].size;
  const int64_t pieces = rows * pieces_per_row;
  const int workers =
      int(std::clamp<int64_t>(rows * row.size / kMinElementsPerThread, 1, threads.count));
  threads.run(workers, [&](int worker) {
    std::array<T, kPieceLength> values;
    const int64_t end = pieces * (worker + 1) / workers;
    for (int64_t i = pieces * worker / workers; i < end; ++i) {
      const int64_t begin = i % pieces_per_row * kPieceLength;
      const int64_t length = std::min(kPieceLength, row.size - begin);
      int64_t element = begin * row.stride;
      int64_t rest = i / pieces_per_row;
      for (size_t k = axes.size() - 1; k-- > 0; rest /= axes[k].size)
        element += rest % axes[k].size * axes[k].stride;
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
  const std::vector<Axis> axes = joined_axes(array, size);
  if (array.dtype == DType::float64) {
    scale_as<double>(array, axes, factor, threads);
  } else {
    scale_as<float>(array, axes, float(factor), threads);
  }
}

}  // namespace nec::cpu
