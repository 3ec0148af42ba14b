// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors

#include "tile_sweep.h"

#include "../math/ngf.h"
#include "../math/stencil.h"
#include "../math/voxel.h"
#include "memory.h"

namespace nec::cpu {
namespace {

// Beyond the row's end the whole vectors of a stencil still read one element.
constexpr int64_t kRowTail = kLanes;

// A gradient of this many bytes, beside two images as large, has left any cache before it is used.
constexpr int64_t kStreamBytes = int64_t(16) << 20;

}  // namespace

template <typename T>
TileSweep<T>::TileSweep(const Problem& problem, const Piece& piece, Scratch& scratch)
    : p_(problem), piece_(piece), kernels_(row_kernels<T>()) {
  gradients_ = int(bool(p_.gradient[0])) + int(bool(p_.gradient[1]));
  const int dim = p_.dim - 2, op = int(p_.op), mode = int(p_.mode);
  bool isotropic = true;
  for (int k = 1; k < p_.dim; ++k) isotropic &= p_.axis_scale[k] == p_.axis_scale[0];
  field_kernel_ = kernels_.field[dim][op][mode][gradients_][isotropic];
  wide_kernel_ = wide_field<T>()[dim][op][mode][gradients_][isotropic];
  adjoint_kernel_ = kernels_.adjoint[dim][op];

  int64_t bytes = sizeof(T);
  for (const int64_t size : p_.size) bytes *= size;
  stream_ = bytes >= kStreamBytes;

  const int margin = gradients_ == 0 ? 0 : 1;
  for (int k = 0; k < 3; ++k) {
    field_.lo[k] = std::max<int64_t>(piece.box.lo[k] - margin, 0);
    field_.hi[k] = std::min(piece.box.hi[k] + margin, p_.size[k + 2]);
  }
  width_ = field_.hi[2] - field_.lo[2];
  pitch_ = width_ + 2;
  span_ = (piece.images - 1) * pitch_ + width_;
  length_ = ceil_div(span_, kLanes) * kLanes;
  staged_[0] = field_.lo[2] > 0 ? -1 : 0;
  staged_[1] = field_.hi[2] < p_.size[4] ? width_ + 1 : width_;
  for (int image = 0; image < 2; ++image) {
    const View& view = p_.image[image];
    const int64_t bytes = element_bytes(view.dtype);
    sources_[image] = {kernels_.load[int(view.dtype)],
                       address(view, 0, 0, field_.lo[2] + staged_[0]),
                       image_step(view),
                       view.stride[2] * bytes,
                       view.stride[3] * bytes,
                       view.stride[4],
                       view.stride[4] == 1 ? (staged_[1] - staged_[0]) * bytes : 0};
  }
  row_ = kPad + length_ + kRowTail;
  rows_ = field_.hi[1] - field_.lo[1] + 2;

  const int64_t image_rows = 2 * kRing * rows_;
  const int64_t gradient_rows = gradients_ * 2 * rows_;
  const int64_t field_rows = gradients_ * p_.dim * kRing;
  constexpr int64_t kValueRows = 6;
  const int64_t all_rows = image_rows + gradient_rows + field_rows + kValueRows;
  images_ = scratch.template get<T>(all_rows * row_) + kPad;
  gradients_under_way_ = images_ + image_rows * row_;
  fields_ = gradients_under_way_ + gradient_rows * row_;
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
  r.gradient_scale = T(p_.gradient_scale);
  const double unit = p_.axis_scale[p_.dim - 1];
  for (int k = 0; k < p_.dim; ++k) r.axis_scale[k] = T(p_.axis_scale[k] / unit);
  with_stencil(p_.op, [&](auto stencil) {
    eps_scale_ = T(1 / (unit * stencil.axis_scale));
    for (int k = 0; k < 3; ++k) {
      spread_[k] = T(stencil.spread[k]);
      taps_[k] = T(stencil.adjoint_taps[k]);
    }
    for (int k = 0; k < 2; ++k) continuation_[k] = stencil.continuation[k];
  });
}

template <typename T>
T* TileSweep<T>::image_plane(int image, int64_t z) const {
  const int slot = int(std::clamp<int64_t>(z, 0, p_.size[2] - 1) % kRing);
  return images_ + (image * kRing + slot) * rows_ * row_;
}

template <typename T>
int64_t TileSweep<T>::image_row(int64_t y) const {
  return (std::clamp<int64_t>(y, 0, p_.size[3] - 1) - field_.lo[1] + 1) * row_;
}

template <typename T>
T* TileSweep<T>::field_row(int gradient, int axis, int64_t y) const {
  y = std::clamp<int64_t>(y, 0, p_.size[3] - 1);
  return fields_ + ((gradient * p_.dim + axis) * kRing + int(y % kRing)) * row_;
}

template <typename T>
T* TileSweep<T>::gradient_row(int gradient, int which, int64_t y) const {
  return gradients_under_way_ + ((gradient * 2 + which) * rows_ + (y - field_.lo[1])) * row_;
}

template <typename T>
char* TileSweep<T>::address(const View& v, int64_t z, int64_t y, int64_t x) const {
  const int64_t element = piece_.first[0] * v.stride[0] + piece_.first[1] * v.stride[1] +
                          z * v.stride[2] + y * v.stride[3] + x * v.stride[4];
  return static_cast<char*>(v.data) + element * element_bytes(v.dtype);
}

// -------------------------------------------------------------------------------------------------
// Into and out of the scratch memory
// -------------------------------------------------------------------------------------------------

template <typename T>
void TileSweep<T>::stage_row(int64_t z, int64_t y) {
  if (z >= p_.size[2] || y < 0 || y >= p_.size[3]) return;
  for (int image = 0; image < 2; ++image) {
    const Source& s = sources_[image];
    const char* from = s.origin + z * s.plane + y * s.row;
    T* row = image_plane(image, z) + image_row(y);
    for (int64_t left = piece_.images;; row += pitch_, from += s.image) {
      if (z + 1 < p_.size[2]) {
        // The row that follows at this place, a plane later: it arrives while this one is computed.
        const char* next = from + s.plane;
        for (int64_t k = 0; k < s.prefetched; k += kCacheLine) __builtin_prefetch(next + k);
      }
      s.load(from, s.stride, staged_[1] - staged_[0], row + staged_[0]);
      if (staged_[0] == 0) row[-1] = row[0];
      if (--left == 0) break;
      if (staged_[1] == width_) row[width_] = row[width_ - 1];
    }
    // The last value continues the border, and gives the unused lanes something finite.
    std::fill(row + staged_[1], row + (length_ - span_) + width_ + 1, row[staged_[1] - 1]);
  }
}

template <typename T>
void TileSweep<T>::load_values(const View& view, int64_t z, int64_t y, T* row) const {
  const char* from = address(view, z, y, field_.lo[2]);
  for (int64_t i = 0; i < piece_.images; ++i, row += pitch_, from += image_step(view))
    kernels_.load[int(view.dtype)](from, view.stride[4], width_, row);
}

template <typename T>
bool TileSweep<T>::load_eps(const View& view, int64_t z, int64_t y, T* row) {
  load_values(view, z, y, row);
  bool in_range = true;
  for (int64_t i = 0; i < piece_.images; ++i) {
    T* own = row + i * pitch_;
    for (int64_t x = 0; x < width_; ++x) {
      own[x] = checked_eps(own[x] * eps_scale_);
      in_range &= own[x] >= Range<T>::eps_min && own[x] <= Range<T>::eps_max;
    }
  }
  fill_between(row, 0, width_, T(1));
  return in_range;
}

// Fills each image's row outside of [begin, end), and what lies between two images.
template <typename T>
void TileSweep<T>::fill_between(T* row, int64_t begin, int64_t end, T value) const {
  for (int64_t i = 0; i < piece_.images; ++i) {
    T* own = row + i * pitch_;
    std::fill(own, own + begin, value);
    std::fill(own + end, i + 1 < piece_.images ? own + pitch_ : row + length_, value);
  }
}

template <typename T>
void TileSweep<T>::load_weight(int64_t z, int64_t y) {
  if (p_.mask) {
    load_values(p_.mask, z, y, weight_);
    for (int64_t x = 0; x < span_; ++x) weight_[x] = checked_mask(weight_[x]);
  } else {
    std::fill(weight_, weight_ + span_, T(1));
  }
  if (p_.upstream) {
    load_values(p_.upstream, z, y, upstream_);
    for (int64_t x = 0; x < span_; ++x) weight_[x] *= upstream_[x];
  }
  fill_between(weight_, 0, width_, T(0));
}

template <typename T>
void TileSweep<T>::store(const View& view, int64_t z, int64_t y, const T* row) const {
  const int64_t lo = piece_.box.lo[2], hi = piece_.box.hi[2];
  char* to = address(view, z, y, lo);
  row += lo - field_.lo[2];
  for (int64_t i = 0; i < piece_.images; ++i, row += pitch_, to += image_step(view))
    kernels_.store[int(view.dtype)](row, hi - lo, to, view.stride[4]);
}

// -------------------------------------------------------------------------------------------------
// One plane
// -------------------------------------------------------------------------------------------------

template <typename T>
void TileSweep<T>::point_at_plane(int64_t z) {
  for (int image = 0; image < 2; ++image)
    for (int dz = -1; dz <= 1; ++dz) planes_[image][dz + 1] = image_plane(image, z + dz);
  // At an end of the array the plane stands in for the one beyond.
  T* own = adjoint_arguments_.own;
  own[0] = spread_[1];
  own[1] = taps_[1];
  if (z == 0) {
    own[0] += spread_[0];
    own[1] += taps_[0] * T(continuation_[0]);
  }
  if (z + 1 == p_.size[2]) {
    own[0] += spread_[2];
    own[1] += taps_[2] * T(continuation_[1]);
  }
}

template <typename T>
void TileSweep<T>::compute_field(int64_t z, int64_t y) {
  FieldRow<T>& r = field_arguments_;
  for (int dy = 0; dy < 3; ++dy) {
    const int64_t row = image_row(y + dy - 1);
    for (int dz = 0; dz < 3; ++dz) {
      r.input[dz][dy] = planes_[0][dz] + row;
      r.target[dz][dy] = planes_[1][dz] + row;
    }
  }
  for (int axis = 0; axis < p_.dim; ++axis) {
    r.field_input[axis] = field_row(0, axis, y);
    r.field_target[axis] = field_row(1, axis, y);
  }
  bool in_range = eps_in_range_;
  for (int image = 0; image < 2; ++image) {
    const View& view = p_.eps_view[image];
    if (view.varies_in_space()) in_range &= load_eps(view, z, y, eps_[image]);
  }
  if (weight_varies()) load_weight(z, y);
  if (!in_range || !field_kernel_(r)) wide_kernel_(r);
  for (int axis = 0; axis < p_.dim; ++axis) {
    if (gradients_ > 0) finish_field_row(r.field_input[axis], axis);
    if (gradients_ > 1) finish_field_row(r.field_target[axis], axis);
  }
}

// Beyond the array's ends the field goes on as stencil.h states.
template <typename T>
void TileSweep<T>::finish_field_row(T* row, int axis) const {
  const bool along = axis == p_.dim - 1;
  const T below = along ? T(continuation_[0]) : T(1), above = along ? T(continuation_[1]) : T(1);
  for (int64_t left = piece_.images;; row += pitch_) {
    if (field_.lo[2] == 0) row[-1] = below * row[0];
    if (field_.hi[2] == p_.size[4]) row[width_] = above * row[width_ - 1];
    if (--left == 0) break;
  }
}

template <typename T>
double TileSweep<T>::reduce_row(int64_t z, int64_t y) {
  if (p_.loss_map) {
    for (int64_t x = 0; x < length_; ++x)
      output_[x] = voxel_loss(T(p_.weight) * weight_[x], squared_alignment_[x]);
    store(p_.loss_map, z, y, output_);
  }
  return sum_row(squared_alignment_);
}

// Sums values times weights over the box.
template <typename T>
double TileSweep<T>::sum_row(T* values) const {
  const int64_t begin = piece_.box.lo[2] - field_.lo[2], end = piece_.box.hi[2] - field_.lo[2];
  // Between two images there is no voxel.
  for (int64_t x = end; x < span_; x += pitch_)
    std::fill_n(values + x, pitch_ - (end - begin), T(0));
  return kernels_.weighted_sum(values + begin, weight_ + begin, span_ - width_ + end - begin);
}

template <typename T>
void TileSweep<T>::compute_adjoint(int64_t z, int64_t y) {
  const Box& box = piece_.box;
  AdjointRow<T>& r = adjoint_arguments_;
  r.begin = box.lo[2] - field_.lo[2];
  r.end = (piece_.images - 1) * pitch_ + box.hi[2] - field_.lo[2];
  r.sign_y[0] = y > 0 ? T(1) : T(continuation_[0]);
  r.sign_y[1] = T(1);
  r.sign_y[2] = y + 1 < p_.size[3] ? T(1) : T(continuation_[1]);
  for (int g = 0; g < gradients_; ++g) {
    for (int axis = 0; axis < p_.dim; ++axis)
      for (int dy = 0; dy < 3; ++dy) r.field[axis][dy] = field_row(g, axis, y + dy - 1);
    r.carried = gradient_row(g, 0, y);
    r.running = gradient_row(g, 1, y);
    // The first plane of the field may complete a plane that is not in the box: to be thrown away.
    const View& view = p_.gradient[g];
    const bool in_box = z > box.lo[0];
    const bool direct = in_box && piece_.images == 1 && view.stride[4] == 1 &&
                        element_bytes(view.dtype) == sizeof(T);
    T* gradient = direct ? reinterpret_cast<T*>(address(view, z - 1, y, field_.lo[2])) : nullptr;
    r.gradient = direct && !stream_ ? gradient : output_;
    adjoint_kernel_(r);
    if (direct && stream_) {
      const size_t bytes = size_t(r.end - r.begin) * sizeof(T);
      stream_copy(output_ + r.begin, bytes, gradient + r.begin);
    } else if (in_box && !direct) {
      store(view, z - 1, y, output_);
    }
  }
}

template <typename T>
void TileSweep<T>::sweep_plane(int64_t z, double* sum) {
  const Box& box = piece_.box;
  const auto in_box = [&](int64_t y) { return y >= box.lo[1] && y < box.hi[1]; };
  const bool counts = z >= box.lo[0] && z < box.hi[0];
  point_at_plane(z);
  stage_row(z + 1, field_.lo[1] - 1);
  stage_row(z + 1, field_.lo[1]);
  for (int64_t y = field_.lo[1]; y <= field_.hi[1]; ++y) {
    if (y < field_.hi[1]) {
      stage_row(z + 1, y + 1);
      compute_field(z, y);
      if (counts && in_box(y)) *sum += reduce_row(z, y);
    }
    if (gradients_ > 0 && in_box(y - 1)) compute_adjoint(z, y - 1);
  }
}

// -------------------------------------------------------------------------------------------------
// All planes
// -------------------------------------------------------------------------------------------------

template <typename T>
void TileSweep<T>::run(double* partials, int64_t step) {
  for (int image = 0; image < 2; ++image) {
    const View& view = p_.eps_view[image];
    const View scalar{const_cast<double*>(&p_.eps[image]), DType::float64, {}};
    if (!view.varies_in_space()) eps_in_range_ &= load_eps(view ? view : scalar, 0, 0, eps_[image]);
  }
  if (!weight_varies()) load_weight(0, 0);
  std::fill(gradients_under_way_ - kPad, fields_ - kPad, T(0));

  const Box& box = piece_.box;
  for (int64_t z = std::max<int64_t>(field_.lo[0] - 1, 0); z <= field_.lo[0]; ++z) {
    for (int64_t y = field_.lo[1] - 1; y <= field_.hi[1]; ++y) stage_row(z, y);
  }
  for (int64_t z = field_.lo[0]; z < field_.hi[0]; ++z) {
    double sum = 0;
    sweep_plane(z, &sum);
    if (z >= box.lo[0] && z < box.hi[0]) partials[(z - box.lo[0]) * step] += sum;
  }
  if (box.hi[0] == p_.size[2]) store_last_plane();
  if (stream_) stream_fence();
}

// The last plane of the array is complete without a plane after it.
template <typename T>
void TileSweep<T>::store_last_plane() {
  for (int g = 0; g < gradients_; ++g) {
    for (int64_t y = piece_.box.lo[1]; y < piece_.box.hi[1]; ++y)
      store(p_.gradient[g], p_.size[2] - 1, y, gradient_row(g, 1, y));
  }
}

template <typename T>
void TileSweep<T>::sum_mask(double* partials, int64_t step) {
  const Box& box = piece_.box;
  std::fill(output_, output_ + length_, T(1));
  for (int64_t z = box.lo[0]; z < box.hi[0]; ++z) {
    for (int64_t y = box.lo[1]; y < box.hi[1]; ++y) {
      load_weight(z, y);
      partials[(z - box.lo[0]) * step] += sum_row(output_);
    }
  }
}

template class TileSweep<float>;
template class TileSweep<double>;

}  // namespace nec::cpu
