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
#include <utility>
#include <vector>

#include "../problem.h"

namespace nec {

using torch::stable::Tensor;

enum class Reduction : int64_t { none = 0, mean = 1, sum = 2 };

// The common arguments of the ops of the schema.
struct Arguments {
  Tensor input, target;                                 // [B, C, (D,) H, W]
  std::optional<Tensor> eps_map, target_eps_map, mask;  // broadcastable to the images
  double eps, target_eps;
  int64_t eps_mode, op, form;
  std::vector<double> spacing;  // one per spatial axis
  double weight;
};

// The arguments of a call, which torch hands over on a stack, in the order of the schema.
class Reader {
 public:
  explicit Reader(StableIValue* stack) : next_(stack) {}

  template <typename T>
  T take() {
    return torch::stable::detail::to<T>(*next_++);
  }
  Arguments take_arguments();

 private:
  StableIValue* next_;
};

// Puts the results of a call in the place of its arguments.
template <typename... T>
void give(StableIValue* stack, const T&... results) {
  ((*stack++ = torch::stable::detail::from(results)), ...);
}

// The axes of an image as a Problem has them, in the order of axes.h.
class ImageAxes {
 public:
  ImageAxes(const Tensor& image, int row_axes);

  // A view of a tensor on the image's device, of its shape or broadcastable to it.
  View view(const Tensor& tensor) const;

  // A view of a tensor that is a box of such an image, by the indices of the image.
  View view(const Tensor& tensor, const Box& box) const;

  int dim;  // 2 or 3
  int64_t size[kAxes];
  int axis[3];  // the spatial axis of the tensors that becomes z, y, x; negative: none

 private:
  int device_index_;
};

// Fills everything but the outputs, the upstream gradient and the gradient scale. The window is the
// whole image.
Problem make_problem(const Arguments& arguments, const ImageAxes& axes);

// Narrows the window to the voxels begin to end along an axis of the tensors.
void set_window(const ImageAxes& axes, int64_t dim, int64_t begin, int64_t end, Problem& problem);

// Voxels in the window, over all images: the sum of the mask where there is none.
double voxel_count(const Problem& problem);

// float64 if an image is, else float32: what losses and factors are returned in.
Tensor new_scalar(const Arguments& arguments);

// Allocates the gradients that are asked for and makes them outputs of the problem; a tensor
// without elements stands for one that is not.
std::pair<Tensor, Tensor> add_gradients(const Arguments& arguments, const ImageAxes& axes,
                                        bool input_grad, bool target_grad, Problem& problem);

// The same for the gradients by the eps of both images, per voxel.
std::pair<Tensor, Tensor> add_eps_gradients(const Arguments& arguments, const ImageAxes& axes,
                                            bool eps_grad, bool target_eps_grad, Problem& problem);

// Makes given tensors of the window's shape the gradients.
void set_gradients(const ImageAxes& axes, const std::optional<Tensor>& grad_input,
                   const std::optional<Tensor>& grad_target, Problem& problem);

// Allocates a map of the images' shape and makes it the output that `view` describes; without
// elements where it is not wanted.
Tensor add_map(const Arguments& arguments, const ImageAxes& axes, bool wanted, View& view);

}  // namespace nec
