// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The ops on the CPU.

#include <tuple>
#include <utility>

#include "../cpu/sweep.h"
#include "arguments.h"

namespace nec {
namespace {

cpu::Threads torch_threads() {
  return {int(torch::stable::get_num_threads()),
          [](int count, const std::function<void(int)>& body) {
            torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
              for (int64_t worker = begin; worker < end; ++worker) body(int(worker));
            });
          }};
}

void set_scalar(const Tensor& tensor, double value) {
  if (tensor.element_size() == sizeof(double)) {
    *static_cast<double*>(tensor.mutable_data_ptr()) = value;
  } else {
    *static_cast<float*>(tensor.mutable_data_ptr()) = float(value);
  }
}

// Voxels outside the window keep what they are filled with here; a whole window is overwritten.
Tensor new_gradient(const Tensor& image, bool partial) {
  Tensor gradient = torch::stable::empty_like(image);
  if (partial) torch::stable::zero_(gradient);
  return gradient;
}

bool window_is_partial(const Problem& p) {
  for (int k = 0; k < 3; ++k)
    if (p.window.lo[k] > 0 || p.window.hi[k] < p.size[k + 2]) return true;
  return false;
}

// Allocates the gradients that are asked for and runs the sweep. The sweep itself knows "none",
// "the first" and "both": the gradient of the target alone is that of the first image after a swap,
// since the loss is symmetric.
std::pair<Tensor, Tensor> sweep_gradients(const Arguments& a, ProblemBuilder& builder,
                                          bool input_grad, bool target_grad, double* sum) {
  Problem& p = builder.problem;
  Tensor grad_input = new_absent(a), grad_target = new_absent(a);
  const bool partial = window_is_partial(p);
  if (input_grad) {
    grad_input = new_gradient(a.input, partial);
    p.gradient[0] = builder.view(grad_input);
  }
  if (target_grad) {
    grad_target = new_gradient(a.target, partial);
    p.gradient[1] = builder.view(grad_target);
  }
  if (target_grad && !input_grad) {
    std::swap(p.image[0], p.image[1]);
    std::swap(p.eps[0], p.eps[1]);
    std::swap(p.eps_view[0], p.eps_view[1]);
    std::swap(p.gradient[0], p.gradient[1]);
  }
  *sum = cpu::sweep(p, torch_threads());
  return {grad_input, grad_target};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> ngf_forward(
    Tensor input, Tensor target, std::optional<Tensor> eps_map,
    std::optional<Tensor> target_eps_map, std::optional<Tensor> mask, double eps, double target_eps,
    int64_t eps_mode, int64_t op, std::vector<double> spacing, double weight,
    std::vector<int64_t> region, int64_t reduction, std::optional<double> count, bool normalize,
    bool input_grad, bool target_grad) {
  const Arguments a{input,      target,   eps_map, target_eps_map, mask,   eps,
                    target_eps, eps_mode, op,      spacing,        weight, region};
  ProblemBuilder builder(a);
  Problem& p = builder.problem;
  const Tensor factor_tensor = new_scalar(a);
  double factor = weight;

  if (Reduction(reduction) == Reduction::none) {
    Tensor loss_map = new_loss_map(a);
    if (window_is_partial(p)) torch::stable::zero_(loss_map);
    p.loss_map = builder.view(loss_map);
    double unused;
    const auto [grad_input, grad_target] = sweep_gradients(a, builder, false, false, &unused);
    set_scalar(factor_tensor, factor);
    return {loss_map, grad_input, grad_target, factor_tensor};
  }

  const double voxels = p.mask ? cpu::mask_sum(p, torch_threads()) : voxel_count(p);
  if (Reduction(reduction) == Reduction::mean) {
    // A mean over no voxel is 0 with gradient 0: a patch without brain must not stop a training.
    const double denominator = count.value_or(voxels);
    factor = denominator == 0 ? 0 : weight / denominator;
  }
  p.gradient_scale = normalize ? factor : 1.0;
  double sum;
  const auto [grad_input, grad_target] = sweep_gradients(a, builder, input_grad, target_grad, &sum);
  const Tensor loss = new_scalar(a);
  set_scalar(loss, factor * (voxels - 0.5 * sum));
  set_scalar(factor_tensor, factor);
  return {loss, grad_input, grad_target, factor_tensor};
}

std::tuple<Tensor, Tensor> ngf_backward(Tensor upstream, Tensor input, Tensor target,
                                        std::optional<Tensor> eps_map,
                                        std::optional<Tensor> target_eps_map,
                                        std::optional<Tensor> mask, double eps, double target_eps,
                                        int64_t eps_mode, int64_t op, std::vector<double> spacing,
                                        double weight, std::vector<int64_t> region, bool input_grad,
                                        bool target_grad) {
  const Arguments a{input,      target,   eps_map, target_eps_map, mask,   eps,
                    target_eps, eps_mode, op,      spacing,        weight, region};
  ProblemBuilder builder(a);
  builder.problem.upstream = builder.view(upstream);
  builder.problem.gradient_scale = weight;
  double unused;
  const auto [grad_input, grad_target] =
      sweep_gradients(a, builder, input_grad, target_grad, &unused);
  return {grad_input, grad_target};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(nec_ext, CPU, m) {
  m.impl("ngf_forward", TORCH_BOX(&ngf_forward));
  m.impl("ngf_backward", TORCH_BOX(&ngf_backward));
}

}  // namespace nec
