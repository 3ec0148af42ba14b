// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors

#include "arguments.h"

#include <torch/headeronly/util/Exception.h>

#include <algorithm>

namespace nec {
namespace {

using torch::headeronly::ScalarType;

DType dtype_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Double: return DType::float64;
    case ScalarType::Float: return DType::float32;
    case ScalarType::Half: return DType::float16;
    case ScalarType::BFloat16: return DType::bfloat16;
    case ScalarType::Bool:
    case ScalarType::Byte: return DType::uint8;
    default: break;
  }
  STD_TORCH_CHECK(false,
                  "nec_ext: unsupported dtype; nec_ext.ngf_loss checks and converts its arguments");
}

bool is_float64(const Arguments& a) {
  return a.input.scalar_type() == ScalarType::Double ||
         a.target.scalar_type() == ScalarType::Double;
}

// Far enough from the ends of float32 for an eps, a spacing and their quotient.
bool fits_float32(double value) { return value > 1e-6 && value < 1e6; }

Tensor new_like(const Arguments& a, torch::headeronly::IntHeaderOnlyArrayRef shape) {
  return torch::stable::empty(shape, is_float64(a) ? ScalarType::Double : ScalarType::Float,
                              std::nullopt, a.input.device());
}

}  // namespace

ProblemBuilder::ProblemBuilder(const Arguments& a) : problem{} {
  const int64_t ndim = a.input.dim();
  STD_TORCH_CHECK((ndim == 4 || ndim == 5) && a.target.dim() == ndim,
                  "nec_ext: input and target must both have 4 or 5 dimensions");
  for (int64_t k = 0; k < ndim; ++k) {
    STD_TORCH_CHECK(a.input.size(k) == a.target.size(k) && a.input.size(k) > 0,
                    "nec_ext: input and target must have the same, non-empty shape");
  }
  const int dim = int(ndim) - 2;
  STD_TORCH_CHECK(int(a.spacing.size()) == dim,
                  "nec_ext: spacing must have one number per spatial axis");
  STD_TORCH_CHECK(a.op >= 0 && a.op <= 2 && a.eps_mode >= 0 && a.eps_mode <= 1,
                  "nec_ext: unknown operator or eps mode");
  STD_TORCH_CHECK(a.region.empty() || int(a.region.size()) == 4 * dim,
                  "nec_ext: region must be empty or have four numbers per spatial axis");

  // In 2D axis 1 of the problem has length 1 and no axis of the tensors.
  std::vector<int> axes;
  for (int k = 0; k < dim; ++k) axes.push_back(k);
  std::stable_sort(axes.begin(), axes.end(),
                   [&](int p, int q) { return a.input.stride(p + 2) > a.input.stride(q + 2); });
  order_[0] = axes.front();
  order_[1] = dim == 3 ? axes[1] : -1;
  order_[2] = axes.back();

  Problem& p = problem;
  p.dim = dim;
  p.op = Operator(a.op);
  p.mode = EpsMode(a.eps_mode);
  p.size[0] = a.input.size(0);
  p.size[1] = a.input.size(1);
  for (int k = 0; k < 3; ++k) {
    const int axis = order_[k];
    const int64_t size = axis < 0 ? 1 : a.input.size(axis + 2);
    p.size[k + 2] = size;
    const auto bound = [&](int row, int64_t fallback) {
      return axis < 0 || a.region.empty() ? fallback : a.region[size_t(row * dim + axis)];
    };
    p.terms.lo[k] = bound(0, 0);
    p.terms.hi[k] = bound(1, size);
    p.window.lo[k] = bound(2, 0);
    p.window.hi[k] = bound(3, size);
    for (const Box* box : {&p.terms, &p.window}) {
      STD_TORCH_CHECK(0 <= box->lo[k] && box->lo[k] < box->hi[k] && box->hi[k] <= size,
                      "nec_ext: region must lie inside the image and not be empty");
    }
  }
  for (int k = 0; k < dim; ++k) p.axis_scale[k] = 1.0 / a.spacing[size_t(axes[size_t(k)])];
  p.image[0] = view(a.input);
  p.image[1] = view(a.target);
  p.eps[0] = a.eps;
  p.eps[1] = a.target_eps;
  if (a.eps_map) p.eps_view[0] = view(*a.eps_map);
  if (a.target_eps_map) p.eps_view[1] = view(*a.target_eps_map);
  p.wide = is_float64(a);
  for (int k = 0; k < dim; ++k) p.wide |= !fits_float32(p.axis_scale[k]);
  for (int k = 0; k < 2; ++k) p.wide |= !p.eps_view[k] && !fits_float32(p.eps[k]);
  if (a.mask) p.mask = view(*a.mask);
  p.weight = a.weight;
  p.gradient_scale = 1.0;
}

View ProblemBuilder::view(const Tensor& tensor) const {
  View v;
  v.data = tensor.data_ptr();
  v.dtype = dtype_of(tensor);
  // Leading axes may be missing, as in every broadcast.
  const int64_t missing = problem.dim + 2 - tensor.dim();
  const auto stride = [&](int64_t axis, int64_t size) -> int64_t {
    if (axis < missing) return 0;
    const int64_t own = tensor.size(axis - missing);
    STD_TORCH_CHECK(own == size || own == 1,
                    "nec_ext: eps and mask must be broadcastable to the images");
    return own == 1 ? 0 : tensor.stride(axis - missing);
  };
  v.stride[0] = stride(0, problem.size[0]);
  v.stride[1] = stride(1, problem.size[1]);
  for (int k = 0; k < 3; ++k)
    v.stride[k + 2] = order_[k] < 0 ? 0 : stride(order_[k] + 2, problem.size[k + 2]);
  return v;
}

double voxel_count(const Problem& p) {
  double count = double(p.size[0]) * double(p.size[1]);
  for (int k = 0; k < 3; ++k) {
    const int64_t lo = std::max(p.terms.lo[k], p.window.lo[k]);
    const int64_t hi = std::min(p.terms.hi[k], p.window.hi[k]);
    count *= double(std::max<int64_t>(hi - lo, 0));
  }
  return count;
}

Tensor new_scalar(const Arguments& a) { return new_like(a, {}); }

Tensor new_absent(const Arguments& a) {
  const int64_t zero = 0;
  return new_like(a, {&zero, 1});
}

Tensor new_loss_map(const Arguments& a) {
  std::vector<int64_t> shape;
  for (int64_t k = 0; k < a.input.dim(); ++k) shape.push_back(a.input.size(k));
  return new_like(a, shape);
}

}  // namespace nec
