// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// Which spatial axis of an image becomes z, y and x of a Problem. The loss does not depend on the
// order of the axes, only each axis' spacing has to go with it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace nec {

// Below so many voxels, what a row costs besides its voxels exceeds what it costs to gather the
// voxels of one that is twice as long.
constexpr int64_t kLongRow = 32;
// In elements. Beyond about this many, gathering costs more than a row of less than kLongRow
// voxels.
constexpr int64_t kMaxRowStride = 512;

// The axes in the order of their strides, largest first, so that the others are walked along memory
// too; but in the last place the one that makes the rows. `row_axes` are how many of the last ones
// may do that: from the fastest on, a row of less than kLongRow voxels gives way to one that is
// twice as long.
inline std::vector<int> sweep_order(const std::vector<int64_t>& size,
                                    const std::vector<int64_t>& stride, int row_axes) {
  std::vector<int> order;
  for (int k = 0; k < int(size.size()); ++k) order.push_back(k);
  std::stable_sort(order.begin(), order.end(),
                   [&](int p, int q) { return stride[size_t(p)] > stride[size_t(q)]; });
  auto row = order.end() - 1;
  for (auto it = row; order.end() - it <= row_axes; --it) {
    const int64_t length = size[size_t(*row)];
    if (length >= kLongRow) break;
    if (size[size_t(*it)] >= 2 * length && stride[size_t(*it)] <= kMaxRowStride) row = it;
    if (it == order.begin()) break;
  }
  std::rotate(row, row + 1, order.end());
  return order;
}

}  // namespace nec
