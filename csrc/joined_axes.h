// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// An array with as few axes as its strides allow, for kernels to which every element is alike: the
// scaling of a gradient and the sum of a mask.
#pragma once

#include "problem.h"

namespace nec {

struct JoinedAxes {
  struct Axis {
    int64_t length, stride;  // in elements
  };
  Axis axis[kAxes];  // those that vary fastest come first; of length 1 from `count` on
  int count;         // at least 1
  double repeats;    // voxels that share an element: of the axes that the array broadcasts
};

// The kernels on GPUs index an axis by 32 bits.
constexpr int64_t kLongestJoinedAxis = int64_t(1) << 30;

inline JoinedAxes join_axes(const View& array, const int64_t (&size)[kAxes]) {
  JoinedAxes joined{{}, 0, 1};
  JoinedAxes::Axis(&axis)[kAxes] = joined.axis;
  int count = 0;
  for (int k = 0; k < kAxes; ++k) {
    const int64_t stride = array.stride[k];
    if (stride == 0) {
      joined.repeats *= double(size[k]);
    } else if (size[k] > 1) {
      int at = count++;
      for (; at > 0 && axis[at - 1].stride > stride; --at) axis[at] = axis[at - 1];
      axis[at] = {size[k], stride};
    }
  }
  if (count == 0) axis[count++] = {1, 1};
  // An axis whose elements follow those of the axis before becomes part of it.
  for (int k = 1; k < count; ++k) {
    JoinedAxes::Axis& before = axis[joined.count];
    if (axis[k].stride == before.stride * before.length &&
        before.length * axis[k].length <= kLongestJoinedAxis) {
      before.length *= axis[k].length;
    } else {
      axis[++joined.count] = axis[k];
    }
  }
  ++joined.count;
  for (int k = joined.count; k < kAxes; ++k) axis[k] = {1, 0};
  return joined;
}

}  // namespace nec
