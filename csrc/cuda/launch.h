// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The CUDA path, as csrc/ops sees it: no type of torch, and none of CUDA's headers.
//
// Every call only enqueues kernels on a stream of the current device. It never waits for the GPU,
// allocates nothing, and may be captured into a CUDA graph. A kernel that cannot be launched throws
// a std::runtime_error that names it.
#pragma once

#include <cstdint>

#include "../problem.h"

namespace nec::cuda {

using Stream = void*;  // a cudaStream_t

// What becomes of the sum over voxels. Scalars in device memory have the type of the arithmetic:
// float64 if the problem is of float64 images (`wide_scalars`), else float32.
struct Total {
  double weight;      // of the loss
  bool mean;          // divided by `count`
  double count;       // voxels, or what stands for them
  bool count_mask;    // the sum of the mask stands for them
  double voxels;      // in terms and window; without a mask, the sum of the weights
  bool normalize;     // gradients are those of the loss, else of the sum over voxels
  bool wide_scalars;  // the two outputs below are float64, else float32
  void* loss;         // []
  void* factor;       // [], d loss / d (sum over voxels)
};

// How many doubles of device memory the calls below need.
int64_t workspace_size(const Problem& problem);

// Writes the loss, its factor and the gradients that the problem asks for. `gradient_scale` of the
// problem is ignored.
void launch_loss(const Problem& problem, const Total& total, double* workspace, Stream stream);

// Writes the loss map or the gradients that the problem asks for, and sums nothing.
void launch_maps(const Problem& problem, Stream stream);

// gradient *= upstream * factor in place, each a scalar of device memory; a `factor` of null is 1.
// Where the product is 1, which only the GPU knows, nothing is read or written.
void launch_scale(const View& gradient, const int64_t (&size)[kAxes], const View& upstream,
                  const View& factor, Stream stream);

// The version of the toolkit, as "13.0".
const char* toolkit_version();

}  // namespace nec::cuda
