// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The ops of the schema, written once. A device is made from a tensor that is on it, and has
//   kRowAxes                                 how many of the fastest axes may make the rows
//   (axes.h) void maps(Problem&)                      the loss map or the gradients that are asked
//   for void reduce(Problem&, const Reduced&)    the sum, and the gradients that are asked for void
//   sums(Problem&, bool of_mask, double* out, int64_t count)
//                                            the same, not reduced further: `count` is 1, or that
//                                            of the window's planes
#pragma once

#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <tuple>

#include "arguments.h"

namespace nec {

// What becomes of the sum over voxels; schema.cpp has the meaning of the names.
struct Reduced {
  bool mean;                    // divided by the voxels, or by the sum of the mask
  std::optional<double> count;  // stands for that divisor
  bool normalize;
  Tensor loss, factor;  // outputs
};

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor> ngf_forward(
    Tensor input, Tensor target, std::optional<Tensor> eps_map,
    std::optional<Tensor> target_eps_map, std::optional<Tensor> mask, double eps, double target_eps,
    int64_t eps_mode, int64_t op, std::vector<double> spacing, double weight,
    std::vector<int64_t> region, int64_t reduction, std::optional<double> count, bool normalize,
    bool input_grad, bool target_grad) {
  const Arguments a{input,      target,   eps_map, target_eps_map, mask,   eps,
                    target_eps, eps_mode, op,      spacing,        weight, region};
  const Layout layout(input, Device::kRowAxes);
  Problem p = make_problem(a, layout);
  Device device(input);
  const Tensor factor = new_scalar(a);
  if (Reduction(reduction) == Reduction::none) {
    const Tensor loss_map = add_loss_map(a, layout, p);
    const auto [grad_input, grad_target] = add_gradients(a, layout, false, false, p);
    device.maps(p);
    torch::stable::fill_(factor, weight);
    return {loss_map, grad_input, grad_target, factor};
  }
  const auto [grad_input, grad_target] = add_gradients(a, layout, input_grad, target_grad, p);
  const Tensor loss = new_scalar(a);
  device.reduce(p, {Reduction(reduction) == Reduction::mean, count, normalize, loss, factor});
  return {loss, grad_input, grad_target, factor};
}

template <class Device>
std::tuple<Tensor, Tensor> ngf_backward(Tensor upstream, Tensor input, Tensor target,
                                        std::optional<Tensor> eps_map,
                                        std::optional<Tensor> target_eps_map,
                                        std::optional<Tensor> mask, double eps, double target_eps,
                                        int64_t eps_mode, int64_t op, std::vector<double> spacing,
                                        double weight, std::vector<int64_t> region, bool input_grad,
                                        bool target_grad) {
  const Arguments a{input,      target,   eps_map, target_eps_map, mask,   eps,
                    target_eps, eps_mode, op,      spacing,        weight, region};
  const Layout layout(input, Device::kRowAxes);
  Problem p = make_problem(a, layout);
  p.upstream = layout.view(upstream);
  p.gradient_scale = weight;
  Device device(input);
  const auto gradients = add_gradients(a, layout, input_grad, target_grad, p);
  device.maps(p);
  return gradients;
}

template <class Device>
Tensor ngf_sums_(Tensor input, Tensor target, std::optional<Tensor> eps_map,
                 std::optional<Tensor> target_eps_map, std::optional<Tensor> mask, double eps,
                 double target_eps, int64_t eps_mode, int64_t op, std::vector<double> spacing,
                 double weight, std::vector<int64_t> region, bool per_plane, bool of_mask,
                 std::optional<Tensor> grad_input, std::optional<Tensor> grad_target) {
  const Arguments a{input,      target,   eps_map, target_eps_map, mask,   eps,
                    target_eps, eps_mode, op,      spacing,        weight, region};
  // Sums of planes are those along the axis of the largest stride, which then makes no rows.
  const int row_axes = int(input.dim()) - (per_plane ? 3 : 2);
  const Layout layout(input, std::min(Device::kRowAxes, row_axes));
  Problem p = make_problem(a, layout);
  p.gradient_scale = weight;
  set_gradients(layout, grad_input, grad_target, p);
  Device device(input);
  const int64_t count = per_plane ? p.window.hi[0] - p.window.lo[0] : 1;
  Tensor sums = torch::stable::empty({&count, 1}, torch::headeronly::ScalarType::Double,
                                     std::nullopt, input.device());
  STD_TORCH_CHECK(!of_mask || (p.mask && !p.gradient[0]),
                  "nec_ext: the sum of a mask needs one, and has no gradient");
  device.sums(p, of_mask, static_cast<double*>(sums.mutable_data_ptr()), count);
  return sums;
}

}  // namespace nec
