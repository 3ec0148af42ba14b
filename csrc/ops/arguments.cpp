// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors

#include "arguments.h"

#include <torch/headeronly/util/Exception.h>

#include <algorithm>

#include "axes.h"

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

// A problem knows "none", "the first" and "both": the gradient of the target alone is that of the
// first image after a swap, since the loss is symmetric. Gradients by eps, which would have to be
// swapped too, are never asked for beside those.
void put_wanted_first(Problem& p) {
  STD_TORCH_CHECK(!p.wants_eps_gradient(), "nec_ext: gradients by eps are a sweep of their own");
  if (p.gradient[0] || !p.gradient[1]) return;
  std::swap(p.image[0], p.image[1]);
  std::swap(p.eps[0], p.eps[1]);
  std::swap(p.eps_map[0], p.eps_map[1]);
  std::swap(p.gradient[0], p.gradient[1]);
}

}  // namespace

Arguments Reader::take_arguments() {
  // Braces: from left to right, as the schema has them.
  return {take<Tensor>(),
          take<Tensor>(),
          take<std::optional<Tensor>>(),
          take<std::optional<Tensor>>(),
          take<std::optional<Tensor>>(),
          take<double>(),
          take<double>(),
          take<int64_t>(),
          take<int64_t>(),
          take<int64_t>(),
          take<std::vector<double>>(),
          take<double>()};
}

ImageAxes::ImageAxes(const Tensor& image, int row_axes)
    : axis{}, device_index_(image.get_device_index()) {
  STD_TORCH_CHECK(image.dim() == 4 || image.dim() == 5,
                  "nec_ext: input and target must both have 4 or 5 dimensions");
  dim = int(image.dim()) - 2;
  std::vector<int64_t> sizes, strides;
  for (int k = 0; k < dim; ++k) {
    sizes.push_back(image.size(k + 2));
    strides.push_back(image.stride(k + 2));
  }
  const std::vector<int> axes = sweep_order(sizes, strides, row_axes);
  // In 2D axis 1 of the problem has length 1 and no axis of the tensors.
  axis[0] = axes.front();
  axis[1] = dim == 3 ? axes[1] : -1;
  axis[2] = axes.back();
  size[0] = image.size(0);
  size[1] = image.size(1);
  for (int k = 0; k < 3; ++k) size[k + 2] = axis[k] < 0 ? 1 : image.size(axis[k] + 2);
}

View ImageAxes::view(const Tensor& tensor) const {
  STD_TORCH_CHECK(tensor.get_device_index() == device_index_,
                  "nec_ext: all tensors must be on the device of the input");
  View v;
  v.data = tensor.data_ptr();
  v.dtype = dtype_of(tensor);
  // Leading axes may be missing, as in every broadcast.
  const int64_t missing = dim + 2 - tensor.dim();
  const auto stride = [&](int64_t from, int64_t length) -> int64_t {
    if (from < missing) return 0;
    const int64_t own = tensor.size(from - missing);
    STD_TORCH_CHECK(own == length || own == 1,
                    "nec_ext: eps and mask must be broadcastable to the images");
    return own == 1 ? 0 : tensor.stride(from - missing);
  };
  v.stride[0] = stride(0, size[0]);
  v.stride[1] = stride(1, size[1]);
  for (int k = 0; k < 3; ++k) v.stride[k + 2] = axis[k] < 0 ? 0 : stride(axis[k] + 2, size[k + 2]);
  return v;
}

View ImageAxes::view(const Tensor& tensor, const Box& box) const {
  ImageAxes part = *this;
  for (int k = 0; k < 3; ++k) part.size[k + 2] = box.hi[k] - box.lo[k];
  View v = part.view(tensor);
  int64_t before = 0;  // elements from where voxel 0 of the image would be to the box
  bool same = tensor.dim() == dim + 2;
  for (int k = 0; k < kAxes && same; ++k) {
    same = part.size[k] == (k < 2             ? tensor.size(k)
                            : axis[k - 2] < 0 ? 1
                                              : tensor.size(axis[k - 2] + 2));
    if (k >= 2) before += box.lo[k - 2] * v.stride[k];
  }
  STD_TORCH_CHECK(same && v.dtype != DType::uint8,
                  "nec_ext: a gradient must be of floating point and have the window's shape");
  v.data = static_cast<char*>(v.data) - before * element_bytes(v.dtype);
  return v;
}

Problem make_problem(const Arguments& a, const ImageAxes& axes) {
  const int dim = axes.dim;
  STD_TORCH_CHECK(a.target.dim() == dim + 2,
                  "nec_ext: input and target must both have 4 or 5 dimensions");
  for (int64_t k = 0; k < dim + 2; ++k) {
    STD_TORCH_CHECK(a.input.size(k) == a.target.size(k) && a.input.size(k) > 0,
                    "nec_ext: input and target must have the same, non-empty shape");
  }
  STD_TORCH_CHECK(int(a.spacing.size()) == dim,
                  "nec_ext: spacing must have one number per spatial axis");
  STD_TORCH_CHECK(a.op >= 0 && a.op < kOperators && a.eps_mode >= 0 && a.eps_mode < kModes &&
                      a.form >= 0 && a.form < kForms,
                  "nec_ext: unknown operator, eps mode or form");

  Problem p{};
  p.dim = dim;
  p.op = Operator(a.op);
  p.mode = EpsMode(a.eps_mode);
  p.form = Form(a.form);
  std::copy_n(axes.size, kAxes, p.size);
  double* axis_scale = p.axis_scale;
  for (const double step : a.spacing)
    STD_TORCH_CHECK(step > 0, "nec_ext: spacing must be positive");
  for (int k = 0; k < 3; ++k) {
    const int axis = axes.axis[k];
    p.window.hi[k] = p.size[k + 2];
    if (axis >= 0) *axis_scale++ = 1.0 / a.spacing[size_t(axis)];
  }
  p.image[0] = axes.view(a.input);
  p.image[1] = axes.view(a.target);
  for (const View& image : p.image)
    STD_TORCH_CHECK(image.dtype != DType::uint8, "nec_ext: images must be of a floating type");
  p.eps[0] = a.eps;
  p.eps[1] = a.target_eps;
  if (a.eps_map) p.eps_map[0] = axes.view(*a.eps_map);
  if (a.target_eps_map) p.eps_map[1] = axes.view(*a.target_eps_map);
  p.wide = is_float64(a);
  for (int k = 0; k < dim; ++k) p.wide |= !fits_float32(p.axis_scale[k]);
  for (int k = 0; k < 2; ++k) p.wide |= !p.eps_map[k] && !fits_float32(p.eps[k]);
  if (a.mask) p.mask = axes.view(*a.mask);
  p.weight = a.weight;
  p.gradient_scale = 1.0;
  return p;
}

void set_window(const ImageAxes& axes, int64_t dim, int64_t begin, int64_t end, Problem& p) {
  for (int k = 0; k < 3; ++k) {
    if (axes.axis[k] < 0 || axes.axis[k] + 2 != dim) continue;
    STD_TORCH_CHECK(0 <= begin && begin < end && end <= p.size[k + 2],
                    "nec_ext: the window must lie inside the image and not be empty");
    p.window.lo[k] = begin;
    p.window.hi[k] = end;
    return;
  }
  STD_TORCH_CHECK(false, "nec_ext: the window must be along a spatial axis");
}

double voxel_count(const Problem& p) {
  double count = double(p.size[0]) * double(p.size[1]);
  for (int k = 0; k < 3; ++k) count *= double(p.window.hi[k] - p.window.lo[k]);
  return count;
}

Tensor new_scalar(const Arguments& a) { return new_like(a, {}); }

std::pair<Tensor, Tensor> add_gradients(const Arguments& a, const ImageAxes& axes, bool input_grad,
                                        bool target_grad, Problem& p) {
  const auto add = [&](const Tensor& image, bool wanted, View& view) {
    if (!wanted) return add_map(a, axes, false, view);
    Tensor gradient = torch::stable::empty_like(image);
    view = axes.view(gradient);
    return gradient;
  };
  const Tensor grad_input = add(a.input, input_grad, p.gradient[0]);
  const Tensor grad_target = add(a.target, target_grad, p.gradient[1]);
  put_wanted_first(p);
  return {grad_input, grad_target};
}

std::pair<Tensor, Tensor> add_eps_gradients(const Arguments& a, const ImageAxes& axes,
                                            bool eps_grad, bool target_eps_grad, Problem& p) {
  return {add_map(a, axes, eps_grad, p.eps_gradient[0]),
          add_map(a, axes, target_eps_grad, p.eps_gradient[1])};
}

void set_gradients(const ImageAxes& axes, const std::optional<Tensor>& grad_input,
                   const std::optional<Tensor>& grad_target, Problem& p) {
  if (grad_input) p.gradient[0] = axes.view(*grad_input, p.window);
  if (grad_target) p.gradient[1] = axes.view(*grad_target, p.window);
  put_wanted_first(p);
}

Tensor add_map(const Arguments& a, const ImageAxes& axes, bool wanted, View& view) {
  std::vector<int64_t> shape;
  if (!wanted) shape.push_back(0);
  for (int64_t k = 0; wanted && k < a.input.dim(); ++k) shape.push_back(a.input.size(k));
  Tensor map = new_like(a, shape);
  if (wanted) view = axes.view(map);
  return map;
}

}  // namespace nec
