// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// From tensors and options to a Problem. Shared by the devices.
//
// Only LibTorch's stable ABI is used in this folder, so that one binary serves torch 2.10 and
// later.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <vector>

#include "../problem.h"

namespace nec {

using torch::stable::Tensor;

enum class Reduction : int64_t { none = 0, mean = 1, sum = 2 };

// What the ops of the schema have in common.
struct Arguments {
  Tensor input, target;                                 // [B, C, (D,) H, W]
  std::optional<Tensor> eps_map, target_eps_map, mask;  // broadcastable to the images
  double eps, target_eps;
  int64_t eps_mode, op;
  std::vector<double> spacing;  // one per spatial axis
  double weight;
  // terms lo, terms hi, window lo, window hi, each one number per spatial axis (problem.h); empty:
  // everything.
  std::vector<int64_t> region;
};

// Fills everything but the outputs, the upstream gradient and the gradient scale. Spatial axes are
// put in the order of the input's strides, so that rows are walked along memory whatever the
// layout: the loss does not depend on the order of the axes, only each axis' spacing has to go with
// it.
class ProblemBuilder {
 public:
  explicit ProblemBuilder(const Arguments& arguments);

  // A view of a tensor of the images' shape, or broadcastable to it.
  View view(const Tensor& tensor) const;

  Problem problem;

 private:
  int order_[3];  // order_[k]: the spatial axis of the tensors that becomes axis k of the problem
};

// Voxels in terms and window, over all images: the sum of the mask where there is none.
double voxel_count(const Problem& problem);

// float64 if an image is, else float32: what losses and factors are returned in.
Tensor new_scalar(const Arguments& arguments);

// Stands for a gradient that was not asked for: a tensor without elements.
Tensor new_absent(const Arguments& arguments);

// Of the shape of the images and the type of the loss.
Tensor new_loss_map(const Arguments& arguments);

}  // namespace nec
