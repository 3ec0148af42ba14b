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

  // Calls body(row, x) for every strip that is this thread's, in a grid of any size. Neighbouring
  // threads take neighbouring strips, so that a warp reads whole lines.
  template <typename Body>
  NEC_DEVICE void for_each_strip(int strip, const Body& body) const {
    const int64_t stride = int64_t(gridDim.x) * blockDim.x;
    for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
      int64_t rest = i / strips;
      char* row = array.data;
      // A gradient without gaps is one row: then the loop ends before it divides.
      for (int k = kAxes - 2; k >= 0 && rest > 0; --k) {
        row += rest % size[k] * array.stride[k];
        rest /= size[k];
      }
      body(row, int(i % strips) * strip);
    }
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
