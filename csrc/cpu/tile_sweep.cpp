// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors

#include "tile_sweep.h"

namespace nec::cpu {
namespace {

// Beyond the row's end the whole vectors of a stencil still read one element.
constexpr int64_t kRowTail = kLanes;

template <Operator Op>
constexpr int kContinuation = Stencil<Op>::continuation;
template <Operator Op>
constexpr double kAxisScale = Stencil<Op>::axis_scale;

int continuation_of(Operator op) {
  switch (op) {
    case Operator::central: return kContinuation<Operator::central>;
    case Operator::forward: return kContinuation<Operator::forward>;
    case Operator::sobel: break;
  }
  return kContinuation<Operator::sobel>;
}

double axis_scale_of(Operator op) {
  switch (op) {
    case Operator::central: return kAxisScale<Operator::central>;
    case Operator::forward: return kAxisScale<Operator::forward>;
    case Operator::sobel: break;
  }
  return kAxisScale<Operator::sobel>;
}

int64_t element_size(DType dtype) {
  constexpr int64_t size[kDTypes] = {8, 4, 2, 2, 1};
  return size[int(dtype)];
}

}  // namespace

template <typename T>
TileSweep<T>::TileSweep(const Problem& problem, const Piece& piece, Scratch& scratch)
    : p_(problem), piece_(piece), kernels_(row_kernels<T>()) {
  wanted_ = !p_.gradient[0] ? Gradients::none : !p_.gradient[1] ? Gradients::input : Gradients::both;
  const int dim = p_.dim - 2, op = int(p_.op), mode = int(p_.mode);
  field_kernel_ = kernels_.field[dim][op][mode][int(wanted_)];
  wide_kernel_ = wide_field<T>()[dim][op][mode][int(wanted_)];
  adjoint_kernel_ = kernels_.adjoint[dim][op];
  continuation_ = continuation_of(p_.op);

  const int margin = wanted_ == Gradients::none ? 0 : 1;
  for (int k = 0; k < 3; ++k) {
    field_.lo[k] = std::max<int64_t>(piece.box.lo[k] - margin, 0);
    field_.hi[k] = std::min(piece.box.hi[k] + margin, p_.size[k + 2]);
  }
  length_ = ceil_div(field_.hi[2] - field_.lo[2], kLanes) * kLanes;
  row_ = kPad + length_ + kRowTail;
  rows_ = field_.hi[1] - field_.lo[1] + 2;

  const int64_t image_rows = 2 * kPlanes * rows_;
  const int64_t field_rows = int(wanted_) * p_.dim * kPlanes * rows_;
  constexpr int64_t kValueRows = 6;
  T* memory = scratch.template get<T>((image_rows + field_rows + kValueRows) * row_) + kPad;
  images_ = memory;
  fields_ = images_ + image_rows * row_;
  T* values = fields_ + field_rows * row_;
  for (T** row : {&eps_[0], &eps_[1], &weight_, &upstream_, &squared_alignment_, &output_}) {
    *row = values;
    values += row_;
  }

  FieldRow<T>& r = field_arguments_;
  r.eps_input = eps_[0];
  r.eps_target = eps_[1];
  r.weight = weight_;
  r.squared_alignment = squared_alignment_;
  r.length = length_;
  for (int k = 0; k < 3; ++k) {
    const double scale = p_.axis_scale[k] * axis_scale_of(p_.op);
    r.axis_scale[k] = T(scale);
    r.gradient_scale[k] = T(scale * p_.gradient_scale);
  }
}

template <typename T>
T* TileSweep<T>::image_row(int image, int64_t z, int64_t y) const {
  z = std::clamp<int64_t>(z, 0, p_.size[2] - 1);
  y = std::clamp<int64_t>(y, 0, p_.size[3] - 1);
  return images_ + ((image * kPlanes + z % kPlanes) * rows_ + (y - field_.lo[1] + 1)) * row_;
}

template <typename T>
T* TileSweep<T>::field_row(int gradient, int axis, int64_t z, int64_t y) const {
  z = std::clamp<int64_t>(z, 0, p_.size[2] - 1);
  y = std::clamp<int64_t>(y, 0, p_.size[3] - 1);
  const int64_t plane = (gradient * p_.dim + axis) * kPlanes + z % kPlanes;
  return fields_ + (plane * rows_ + (y - field_.lo[1] + 1)) * row_;
}

template <typename T>
char* TileSweep<T>::address(const View& v, int64_t z, int64_t y, int64_t x) const {
  const int64_t element = piece_.sample * v.stride[0] + piece_.channel * v.stride[1] +
                          z * v.stride[2] + y * v.stride[3] + x * v.stride[4];
  return static_cast<char*>(v.data) + element * element_size(v.dtype);
}

// ---------------------------------------------------------------------------------------------------
// Into the scratch memory
// ---------------------------------------------------------------------------------------------------

template <typename T>
void TileSweep<T>::stage_plane(int64_t z) {
  const int64_t begin = std::max<int64_t>(field_.lo[2] - 1, 0);
  const int64_t end = std::min(field_.hi[2] + 1, p_.size[4]);
  const int64_t first_y = std::max<int64_t>(field_.lo[1] - 1, 0);
  const int64_t last_y = std::min(field_.hi[1] + 1, p_.size[3]);
  for (int image = 0; image < 2; ++image) {
    const View& view = p_.image[image];
    const auto load = kernels_.load[int(view.dtype)];
    for (int64_t y = first_y; y < last_y; ++y) {
      T* row = image_row(image, z, y);
      load(address(view, z, y, begin), view.stride[4], end - begin, row + (begin - field_.lo[2]));
      row[-1] = row[begin == field_.lo[2] ? 0 : -1];
      // The last value continues the border, and gives the unused lanes something finite.
      const int64_t staged = end - field_.lo[2];
      std::fill(row + staged, row + length_ + 1, row[staged - 1]);
    }
  }
}

template <typename T>
void TileSweep<T>::load_values(const View& view, int64_t z, int64_t y, T* row) const {
  kernels_.load[int(view.dtype)](address(view, z, y, field_.lo[2]), view.stride[4],
                                 field_.hi[2] - field_.lo[2], row);
}

template <typename T>
void TileSweep<T>::load_eps(const View& view, int64_t z, int64_t y, T* row) {
  const int64_t n = field_.hi[2] - field_.lo[2];
  load_values(view, z, y, row);
  for (int64_t x = 0; x < n; ++x) {
    if (!(row[x] > 0)) row[x] = std::numeric_limits<T>::quiet_NaN();  // never a plausible number
    eps_out_of_range_ |= !(row[x] >= Range<T>::eps_min && row[x] <= Range<T>::eps_max);
  }
  std::fill(row + n, row + length_, T(1));
}

template <typename T>
void TileSweep<T>::load_weight(int64_t z, int64_t y) {
  const int64_t n = field_.hi[2] - field_.lo[2];
  const bool outside = z < p_.terms.lo[0] || z >= p_.terms.hi[0] || y < p_.terms.lo[1] || y >= p_.terms.hi[1];
  if (outside) {
    std::fill(weight_, weight_ + length_, T(0));
    return;
  }
  if (p_.mask) {
    load_values(p_.mask, z, y, weight_);
    for (int64_t x = 0; x < n; ++x)
      weight_[x] = weight_[x] >= 0 ? weight_[x] : std::numeric_limits<T>::quiet_NaN();
  } else {
    std::fill(weight_, weight_ + n, T(1));
  }
  if (p_.upstream) {
    load_values(p_.upstream, z, y, upstream_);
    for (int64_t x = 0; x < n; ++x) weight_[x] *= upstream_[x];
  }
  const int64_t begin = std::clamp<int64_t>(p_.terms.lo[2] - field_.lo[2], 0, n);
  const int64_t end = std::clamp<int64_t>(p_.terms.hi[2] - field_.lo[2], begin, n);
  std::fill(weight_, weight_ + begin, T(0));
  std::fill(weight_ + end, weight_ + length_, T(0));
}

// ---------------------------------------------------------------------------------------------------
// The field and its sum
// ---------------------------------------------------------------------------------------------------

// Beyond the array's end the field goes on with the sign that stencil.h states.
template <typename T>
void TileSweep<T>::continue_field_row(T* row, int axis) const {
  const bool along = axis == p_.dim - 1;
  const int64_t n = field_.hi[2] - field_.lo[2];
  if (field_.lo[2] == 0) row[-1] = along ? T(continuation_) * row[0] : row[0];
  if (field_.hi[2] == p_.size[4]) row[n] = along ? -row[n - 1] : row[n - 1];
}

template <typename T>
double TileSweep<T>::compute_field_row(int64_t z, int64_t y) {
  FieldRow<T>& r = field_arguments_;
  for (int dz = -1; dz <= 1; ++dz) {
    for (int dy = -1; dy <= 1; ++dy) {
      r.input[dz + 1][dy + 1] = image_row(0, z + dz, y + dy);
      r.target[dz + 1][dy + 1] = image_row(1, z + dz, y + dy);
    }
  }
  for (int k = 0; k < p_.dim; ++k) {
    if (wanted_ != Gradients::none) r.field_input[k] = field_row(0, k, z, y);
    if (wanted_ == Gradients::both) r.field_target[k] = field_row(1, k, z, y);
  }
  for (int image = 0; image < 2; ++image) {
    const View& view = p_.eps_view[image];
    if (view.varies_in_space()) load_eps(view, z, y, eps_[image]);
  }
  if (weight_varies()) load_weight(z, y);
  if (eps_out_of_range_ || !field_kernel_(r)) wide_kernel_(r);

  for (int g = 0; g < int(wanted_); ++g) {
    for (int k = 0; k < p_.dim; ++k) continue_field_row(field_row(g, k, z, y), k);
  }

  const Box& box = piece_.box;
  if (z < box.lo[0] || z >= box.hi[0] || y < box.lo[1] || y >= box.hi[1]) return 0;
  if (p_.loss_map) {
    for (int64_t x = 0; x < length_; ++x)
      output_[x] = T(p_.weight) * weight_[x] * (T(1) - T(0.5) * squared_alignment_[x]);
    store(p_.loss_map, z, y, output_);
  }
  const int64_t begin = box.lo[2] - field_.lo[2];
  return kernels_.weighted_sum(squared_alignment_ + begin, weight_ + begin, box.hi[2] - box.lo[2]);
}

// ---------------------------------------------------------------------------------------------------
// The gradient
// ---------------------------------------------------------------------------------------------------

template <typename T>
void TileSweep<T>::store(const View& view, int64_t z, int64_t y, const T* row) const {
  const int64_t begin = piece_.box.lo[2] - field_.lo[2];
  kernels_.store[int(view.dtype)](row + begin, piece_.box.hi[2] - piece_.box.lo[2],
                                  address(view, z, y, piece_.box.lo[2]), view.stride[4]);
}

template <typename T>
void TileSweep<T>::gather_plane(int64_t z) {
  AdjointRow<T> r;
  r.begin = piece_.box.lo[2] - field_.lo[2];
  r.end = piece_.box.hi[2] - field_.lo[2];
  const auto sign = [&](int64_t index, int64_t size) {
    return index < 0 ? T(continuation_) : index >= size ? T(-1) : T(1);
  };
  for (int g = 0; g < int(wanted_); ++g) {
    const View& view = p_.gradient[g];
    for (int64_t y = piece_.box.lo[1]; y < piece_.box.hi[1]; ++y) {
      for (int d = -1; d <= 1; ++d) {
        r.sign_z[d + 1] = sign(z + d, p_.size[2]);
        r.sign_y[d + 1] = sign(y + d, p_.size[3]);
        for (int axis = 0; axis < p_.dim; ++axis) {
          for (int dy = -1; dy <= 1; ++dy)
            r.field[axis][d + 1][dy + 1] = field_row(g, axis, z + d, y + dy);
        }
      }
      const bool direct = view.stride[4] == 1 && element_size(view.dtype) == int64_t(sizeof(T));
      r.gradient = direct ? reinterpret_cast<T*>(address(view, z, y, field_.lo[2])) : output_;
      adjoint_kernel_(r);
      if (!direct) store(view, z, y, output_);
    }
  }
}

// ---------------------------------------------------------------------------------------------------
// The sweep
// ---------------------------------------------------------------------------------------------------

template <typename T>
void TileSweep<T>::run(double* partials, int64_t step, int64_t slab) {
  for (int image = 0; image < 2; ++image) {
    const View& view = p_.eps_view[image];
    const View scalar{const_cast<double*>(&p_.eps[image]), DType::float64, {}};
    if (!view.varies_in_space()) load_eps(view ? view : scalar, 0, 0, eps_[image]);
  }
  if (!weight_varies()) load_weight(0, 0);

  const Box& box = piece_.box;
  const int64_t planes = p_.size[2];
  for (int64_t z = std::max<int64_t>(field_.lo[0] - 1, 0); z <= field_.lo[0]; ++z) stage_plane(z);
  for (int64_t z = field_.lo[0]; z <= box.hi[0]; ++z) {
    if (z < field_.hi[0]) {
      if (z + 1 < planes) stage_plane(z + 1);
      for (int64_t y = field_.lo[1]; y < field_.hi[1]; ++y) {
        const double sum = compute_field_row(z, y);
        if (z >= box.lo[0] && z < box.hi[0]) partials[(z - box.lo[0]) / slab * step] += sum;
      }
    }
    if (z > box.lo[0]) gather_plane(z - 1);
  }
}

template <typename T>
void TileSweep<T>::sum_mask(double* partials, int64_t step, int64_t slab) {
  const Box& box = piece_.box;
  std::fill(output_, output_ + length_, T(1));
  for (int64_t z = box.lo[0]; z < box.hi[0]; ++z) {
    for (int64_t y = box.lo[1]; y < box.hi[1]; ++y) {
      load_weight(z, y);
      partials[(z - box.lo[0]) / slab * step] += kernels_.weighted_sum(weight_, output_, length_);
    }
  }
}

template class TileSweep<float>;
template class TileSweep<double>;

}  // namespace nec::cpu
