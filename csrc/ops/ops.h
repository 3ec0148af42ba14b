// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The ops of the schema, written once. A device is made from a tensor that is on it, and has
//   kRowAxes                                 how many of the fastest axes may make the rows, axes.h
//   void maps(Problem&)                      the loss map or the gradients that are asked for
//   void reduce(Problem&, const Reduced&)    the sum, and the gradients that are asked for
//   void sums(Problem&, bool of_mask, double* out, int64_t count)
//                                            the same, not reduced further: `count` is 1, or that
//                                            of the window's planes
//   void scale(gradient, size, upstream, factor)
//                                            what ngf_scale_ does, as views; factor may be absent
#pragma once

#include <torch/headeronly/util/Exception.h>

#include <algorithm>

#include "arguments.h"

namespace nec {

// Says what becomes of the sum over voxels; schema.cpp has the meaning of the names.
struct Reduced {
  bool mean;  // divided by the voxels, or by the sum of the mask
  bool normalize;
  Tensor loss, factor;  // outputs
};

template <class Device>
void ngf_forward(StableIValue* stack, uint64_t, uint64_t) {
  Reader in(stack);
  const Arguments a = in.take_arguments();
  const auto reduction = Reduction(in.take<int64_t>());
  STD_TORCH_CHECK(reduction >= Reduction::none && reduction <= Reduction::sum,
                  "nec_ext: unknown reduction");
  const bool normalize = in.take<bool>();
  const bool input_grad = in.take<bool>(), target_grad = in.take<bool>();
  const ImageAxes axes(a.input, Device::kRowAxes);
  Problem p = make_problem(a, axes);
  Device device(a.input);
  const bool is_map = reduction == Reduction::none;
  const Tensor loss = is_map ? add_map(a, axes, true, p.loss_map) : new_scalar(a);
  const Tensor factor = new_scalar(a);
  const auto [grad_input, grad_target] =
      add_gradients(a, axes, input_grad && !is_map, target_grad && !is_map, p);
  if (is_map) {
    device.maps(p);
    torch::stable::fill_(factor, a.weight);
  } else {
    device.reduce(p, {reduction == Reduction::mean, normalize, loss, factor});
  }
  give(stack, loss, grad_input, grad_target, factor);
}

// `add_outputs(arguments, axes, first, second, problem)` allocates two results, of which the two
// flags say whether they are wanted.
template <class Device, class AddOutputs>
void run_backward(StableIValue* stack, const AddOutputs& add_outputs) {
  Reader in(stack);
  const Tensor upstream = in.take<Tensor>();
  const Arguments a = in.take_arguments();
  const bool first_wanted = in.take<bool>(), second_wanted = in.take<bool>();
  const ImageAxes axes(a.input, Device::kRowAxes);
  Problem p = make_problem(a, axes);
  p.upstream = axes.view(upstream);
  p.gradient_scale = a.weight;
  Device device(a.input);
  const auto [first, second] = add_outputs(a, axes, first_wanted, second_wanted, p);
  device.maps(p);
  give(stack, first, second);
}

template <class Device>
void ngf_backward(StableIValue* stack, uint64_t, uint64_t) {
  run_backward<Device>(stack, add_gradients);
}

template <class Device>
void ngf_eps_backward(StableIValue* stack, uint64_t, uint64_t) {
  run_backward<Device>(stack, add_eps_gradients);
}

template <class Device>
void ngf_sums_(StableIValue* stack, uint64_t, uint64_t) {
  Reader in(stack);
  const Arguments a = in.take_arguments();
  const int64_t dim = in.take<int64_t>(), begin = in.take<int64_t>(), end = in.take<int64_t>();
  const bool per_plane = in.take<bool>(), of_mask = in.take<bool>();
  const auto grad_input = in.take<std::optional<Tensor>>();
  const auto grad_target = in.take<std::optional<Tensor>>();
  // Sums of planes are those along the axis of the largest stride, which then makes no rows.
  const int row_axes = int(a.input.dim()) - (per_plane ? 3 : 2);
  const ImageAxes axes(a.input, std::min(Device::kRowAxes, row_axes));
  Problem p = make_problem(a, axes);
  set_window(axes, dim, begin, end, p);
  p.gradient_scale = a.weight;
  set_gradients(axes, grad_input, grad_target, p);
  STD_TORCH_CHECK(!per_plane || axes.axis[0] + 2 == dim,
                  "nec_ext: planes are those along the axis of the largest stride");
  STD_TORCH_CHECK(!of_mask || (p.mask && !p.gradient[0]),
                  "nec_ext: the sum of a mask needs one, and has no gradient");
  Device device(a.input);
  const int64_t count = per_plane ? p.window.hi[0] - p.window.lo[0] : 1;
  const Tensor sums = torch::stable::empty({&count, 1}, torch::headeronly::ScalarType::Double,
                                           std::nullopt, a.input.device());
  device.sums(p, of_mask, static_cast<double*>(sums.mutable_data_ptr()), count);
  give(stack, sums);
}

template <class Device>
void ngf_scale_(Tensor gradient, Tensor upstream, std::optional<Tensor> factor) {
  const auto is_scalar = [](const Tensor& t) {
    const auto dtype = t.scalar_type();
    using torch::headeronly::ScalarType;
    return t.numel() == 1 && (dtype == ScalarType::Float || dtype == ScalarType::Double);
  };
  STD_TORCH_CHECK(is_scalar(upstream) && (!factor || is_scalar(*factor)),
                  "nec_ext: upstream and factor must be scalars of float32 or float64");
  const ImageAxes axes(gradient, Device::kRowAxes);
  const View view = axes.view(gradient);
  STD_TORCH_CHECK(view.dtype != DType::uint8, "nec_ext: a gradient must be of a floating type");
  Device(gradient).scale(view, axes.size, axes.view(upstream),
                         factor ? axes.view(*factor) : View{});
}

}  // namespace nec
