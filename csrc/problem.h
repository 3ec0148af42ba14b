// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// One call of the loss, as plain pointers, sizes and numbers: what csrc/ops hands to csrc/cpu and
// csrc/cuda.
#pragma once

#include <cstdint>

#include "math/common.h"

namespace nec {

// Element types a kernel can read. uint8 is what a bool mask is made of.
enum class DType : int { float64, float32, float16, bfloat16, uint8 };
constexpr int kDTypes = 5;

inline int64_t element_bytes(DType dtype) {
  constexpr int64_t kBytes[kDTypes] = {8, 4, 2, 2, 1};
  return kBytes[int(dtype)];
}

// Axes of every array below: sample, channel, z, y, x. A 2D image (H, W) has z = H, y of length 1
// and x = W: it is swept along its rows as a volume is along its planes.
constexpr int kAxes = 5;

// A strided array of any layout. Stride 0 broadcasts an axis.
struct View {
  void* data = nullptr;  // [B, C, D, H, W]; null: absent
  DType dtype = DType::float32;
  int64_t stride[kAxes] = {};  // in elements

  explicit operator bool() const { return data != nullptr; }
  bool varies_in_space() const { return data && (stride[2] || stride[3] || stride[4]); }
};

// Voxels lo <= index < hi along z, y, x.
struct Box {
  int64_t lo[3];
  int64_t hi[3];
};

struct Problem {
  int dim;  // 2 or 3
  Operator op;
  EpsMode mode;
  bool wide;  // arithmetic in float64; else in float32
  int64_t size[kAxes];
  double axis_scale[3];  // 1 / spacing along z, y, x (2D: along z, x)

  View image[2];     // input, target
  double eps[2];     // of input and target, where the views below are absent
  View eps_view[2];  // per sample, channel or voxel
  View mask;         // voxel weights; absent: 1
  View upstream;     // dL/dl per voxel, for the backward sweep; absent: 1

  // Where a volume is split. The loss and its gradient are those of the voxels in `terms`. Only
  // voxels in `window` are summed and have their gradient written. A whole volume has both boxes
  // full. A process that owns a part of a volume, stored with one more plane of each neighbour, has
  // its own voxels as `terms` and everything as `window`. A tile of a volume has its own voxels as
  // `window` and one more plane on each side as `terms`. A face is a true border exactly where the
  // array ends.
  Box terms, window;

  double gradient_scale;  // multiplies the gradients of the sum over voxels
  double weight;          // multiplies the loss map
  View gradient[2];       // outputs; absent: not asked for. The second only beside the first
  View loss_map;          // output, weight * mask * l per voxel; absent: not asked for

  bool terms_are_partial() const {
    for (int k = 0; k < 3; ++k)
      if (terms.lo[k] > 0 || terms.hi[k] < size[k + 2]) return true;
    return false;
  }
};

}  // namespace nec
