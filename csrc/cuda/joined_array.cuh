// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// All elements of an array, one after the other: for kernels to which every element is alike.
#pragma once

#include "../joined_axes.h"
#include "strips.cuh"

namespace nec::cuda {

// An array with as few axes as its strides allow (joined_axes.h).
struct JoinedArray {
  Array array;      // [..., row]: the axis that varies fastest comes last
  int size[kAxes];  // 1 where there is no axis
  int strips;       // of a row
  int64_t count;    // of strips, in all rows

  // Calls use(strip, row, x) for every strip of N elements that is this thread's, in a grid of any
  // size. Neighbouring threads take neighbouring strips, so that a warp reads whole lines, and a
  // thread requests several before it looks at the first.
  template <typename S, int N, typename Use>
  NEC_DEVICE void for_each_strip(const Use& use) const {
    constexpr int kAtOnce = 4;
    const int64_t threads = int64_t(gridDim.x) * blockDim.x;
    int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    for (; i < count; i += kAtOnce * threads) {
      Packed<S, N> strip[kAtOnce] = {};
      char* row[kAtOnce] = {};
      int x[kAtOnce] = {};
      NEC_UNROLL
      for (int k = 0; k < kAtOnce; ++k) {
        if (i + k * threads >= count) break;
        row[k] = find(i + k * threads, N, x[k]);
        strip[k] = load_packed<S, N>(array, row[k], x[k], size[kAxes - 1]);
      }
      NEC_UNROLL
      for (int k = 0; k < kAtOnce; ++k)
        if (i + k * threads < count) use(strip[k], row[k], x[k]);
    }
  }

 private:
  // The row of a strip, and its place there.
  NEC_DEVICE char* find(int64_t strip, int elements, int& x) const {
    x = int(strip) * elements;
    if (count == strips) return array.data;  // as most arrays are: without gaps, one row
    // A division by 32 bits takes a quarter of the time.
    return count <= int64_t(UINT32_MAX) ? find_in_rows(unsigned(strip), elements, x)
                                        : find_in_rows(strip, elements, x);
  }
  template <typename Index>
  NEC_DEVICE char* find_in_rows(Index strip, int elements, int& x) const {
    Index rest = strip / Index(strips);
    x = int(strip - rest * Index(strips)) * elements;
    char* row = array.data;
    for (int k = kAxes - 2; k >= 0 && rest > 0; --k) {
      row += int64_t(rest % Index(size[k])) * array.stride[k];
      rest /= Index(size[k]);
    }
    return row;
  }
};

// `view`, whose own strides are replaced by those of its joined axes.
template <typename T>
JoinedArray join_array(View view, const JoinedAxes& axes) {
  JoinedArray joined{};
  joined.count = 1;
  for (int k = 0; k < kAxes; ++k) {
    const JoinedAxes::Axis axis = axes.axis[k];
    view.stride[kAxes - 1 - k] = axis.stride;
    joined.size[kAxes - 1 - k] = int(axis.length);
    joined.count *= k == 0 ? ceil_div(axis.length, int64_t(Strip<T>::size)) : axis.length;
  }
  joined.strips = ceil_div(joined.size[kAxes - 1], Strip<T>::size);
  joined.array = make_array(view, Strip<T>::size);
  return joined;
}

}  // namespace nec::cuda
