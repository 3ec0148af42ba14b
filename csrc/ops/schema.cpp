// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The ops of nec_ext, as torch knows them. nec_ext/_fake_kernels.py has their fake kernels.

#include <torch/csrc/stable/library.h>

// ngf_forward returns
//   loss         a scalar, or with reduction none the map of the losses
//   grad_input, grad_target
//                of the loss where `normalize`, else of the weighted sum over voxels (which keeps a
//                float16 gradient from underflowing); without elements where not asked for
//   factor       a scalar: d loss / d (sum over voxels)
//
// ngf_backward is the gradient of the losses per voxel, weighted by `upstream` (broadcastable to
// the images).
//
// ngf_eps_backward is the same by the eps of each image, per voxel; without elements where not
// asked for.
//
// ngf_sums_ is for a volume in parts: the sum of mask * value (math/form.h) over a window, the
// voxels begin to end along the axis dim, in float64, and beside it the gradients of `weight` times
// the sum of the losses of all voxels, written into given tensors of the window's shape.
// `per_plane` returns one sum for each plane of the window along the axis of the largest stride,
// which does not depend on where the window begins and ends along it; `of_mask` the sum of the mask
// instead, and writes nothing.
//
// ngf_scale_ multiplies a gradient by upstream and factor, which are scalars that the host need not
// know. Where their product is 1 it touches nothing.

// All of them begin with these arguments, which Reader::take_arguments (arguments.h) reads.
#define NEC_ARGUMENTS                                                                          \
  "Tensor input, Tensor target, Tensor? eps_map, Tensor? target_eps_map, Tensor? mask, float " \
  "eps, "                                                                                      \
  "float target_eps, int eps_mode, int operator, int form, float[] spacing, float weight"

STABLE_TORCH_LIBRARY(nec_ext, m) {
  m.def("ngf_forward(" NEC_ARGUMENTS
        ", int reduction, bool normalize, bool input_grad, bool target_grad)"
        " -> (Tensor loss, Tensor grad_input, Tensor grad_target, Tensor factor)");
  m.def("ngf_backward(Tensor upstream, " NEC_ARGUMENTS
        ", bool input_grad, bool target_grad) -> (Tensor grad_input, Tensor grad_target)");
  m.def("ngf_eps_backward(Tensor upstream, " NEC_ARGUMENTS
        ", bool eps_grad, bool target_eps_grad) -> (Tensor grad_eps, Tensor grad_target_eps)");
  m.def("ngf_sums_(" NEC_ARGUMENTS
        ", int dim, int begin, int end, bool per_plane, bool of_mask, Tensor(a!)? grad_input,"
        " Tensor(b!)? grad_target) -> Tensor sums");
  m.def("ngf_scale_(Tensor(a!) gradient, Tensor upstream, Tensor? factor) -> ()");
}
