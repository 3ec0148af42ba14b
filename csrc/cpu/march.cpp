// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors

#include "march.h"

#include <algorithm>

#include "../math/voxel.h"

namespace nec::cpu {
namespace {

// A gradient of this many bytes, beside two images as large, has left any cache before it is used.
constexpr int64_t kStreamBytes = int64_t(16) << 20;

template <typename T>
AdjointTaps<T> taps_of(Operator op) {
  return with_stencil(
      op, [](auto stencil) { return AdjointTaps<T>::template of<decltype(stencil)>(); });
}

}  // namespace

template <typename T>
March<T>::March(const Problem& problem, const Piece& piece)
    : p_(problem),
      piece_(piece),
      gradients_(int(problem.wanted_gradients())),
      rows_(problem, piece, gradients_ == 0 ? 0 : 1),
      taps_(taps_of<T>(problem.op)),
      memory_(take_memory()),
      images_(rows_, memory_.images),
      maps_(rows_, memory_.maps),
      whole_rows_(piece.box.lo[2] == 0 && piece.box.hi[2] == problem.size[4]),
      loss_(LossOfValue::of(problem.form)) {
  const int dim = p_.dim - 2, op = int(p_.op), formula = int(p_.formula());
  const bool isotropic = p_.is_isotropic();
  cotangent_kernel_ = rows_.kernels.cotangent[dim][op][formula][gradients_][isotropic];
  wide_kernel_ = wide_cotangents<T>()[dim][op][formula][gradients_][isotropic];
  adjoint_kernel_ = rows_.kernels.adjoint[dim][op];

  int64_t bytes = sizeof(T);
  for (const int64_t size : p_.size) bytes *= size;
  stream_ = bytes >= kStreamBytes;

  const DifferenceUnits units = difference_units(p_.op, p_.dim, p_.axis_scale);
  maps_.load_constant(T(units.eps_scale));
  CotangentRow<T>& r = cotangent_arguments_;
  r.eps_input = maps_.eps(0);
  r.eps_target = maps_.eps(1);
  r.weight = maps_.weight();
  r.value = memory_.value;
  r.length = rows_.length;
  r.gradient_scale = T(p_.gradient_scale);
  r.form = FormFactors<T>::of(p_.mode, p_.form);
  r.eps_scale = T(p_.gradient_scale * units.eps_scale);
  for (int k = 0; k < 2; ++k) {
    r.by_eps[k] = memory_.by_eps + k * rows_.pitch;
    for (int c = 0; c < 3; ++c) r.columns[k][c] = memory_.columns + (3 * k + c) * rows_.pitch;
  }
  std::copy_n(r.columns[0], 3, adjoint_arguments_.columns);
  for (int k = 0; k < 3; ++k) r.axis_scale[k] = T(units.axis_scale[k]);
}

template <typename T>
typename March<T>::Memory March<T>::take_memory() const {
  Memory m;
  rows_.take_scratch({{&m.images, Images<T>::scratch_rows(rows_)},
                      {&m.gradients, gradient_rows()},
                      {&m.cotangents, gradients_ * kRing * p_.dim},
                      {&m.maps, Maps<T>::kRows},
                      {&m.value, 1},
                      {&m.output, 1},
                      {&m.by_eps, 2},
                      {&m.columns, 2 * 3}});
  return m;
}

template <typename T>
T* March<T>::cotangents(int gradient, int64_t y) const {
  y = std::clamp<int64_t>(y, 0, p_.size[3] - 1);
  return memory_.cotangents + (gradient * kRing + int(y % kRing)) * p_.dim * rows_.pitch;
}

template <typename T>
T* March<T>::gradient_row(int gradient, int which, int64_t y) const {
  const int64_t row = (gradient * 2 + which) * rows_.plane_rows + (y - rows_.around.lo[1]);
  return memory_.gradients + row * rows_.pitch;
}

// -------------------------------------------------------------------------------------------------
// One plane
// -------------------------------------------------------------------------------------------------

template <typename T>
void March<T>::point_at_plane(int64_t z) {
  images_.point_at_plane(z);
  const PlaneAdjoint<T> more = taps_.standing_in(z == 0, z + 1 == p_.size[2]);
  adjoint_arguments_.own_taps[0] = taps_.in_plane[1] + more.in_plane;
  adjoint_arguments_.own_taps[1] = taps_.along_z[1] + more.along_z;
}

template <typename T>
void March<T>::compute_cotangents(int64_t z, int64_t y) {
  CotangentRow<T>& r = cotangent_arguments_;
  images_.point_at_row(y, r.input, r.target);
  T *const input = cotangents(0, y), *const target = cotangents(1, y);
  for (int axis = 0; axis < p_.dim; ++axis) {
    r.cotangent_input[axis] = input + axis * rows_.pitch;
    r.cotangent_target[axis] = target + axis * rows_.pitch;
  }
  if (!maps_.load_row(z, y) || !cotangent_kernel_(r)) wide_kernel_(r);
  for (int axis = 0; axis < p_.dim; ++axis) {
    if (gradients_ > 0) continue_cotangents(r.cotangent_input[axis], axis);
    if (gradients_ > 1) continue_cotangents(r.cotangent_target[axis], axis);
  }
}

// Beyond the array's ends along x, as stencil.h states.
template <typename T>
void March<T>::continue_cotangents(T* row, int axis) const {
  const bool along_x = axis == p_.dim - 1;
  const T below = taps_.beyond(0, along_x), above = taps_.beyond(1, along_x);
  const int64_t width = rows_.width;
  for (int64_t left = piece_.pairs;; row += rows_.pair_pitch) {
    if (rows_.around.lo[2] == 0) row[-1] = below * row[0];
    if (rows_.around.hi[2] == p_.size[4]) row[width] = above * row[width - 1];
    if (--left == 0) break;
  }
}

template <typename T>
void March<T>::reduce_row(int64_t z, int64_t y) {
  const T* weight = maps_.weight();
  if (p_.loss_map) {
    for (int64_t x = 0; x < rows_.length; ++x)
      memory_.output[x] = loss_.voxel(T(p_.weight) * weight[x], memory_.value[x]);
    rows_.store(p_.loss_map, z, y, memory_.output);
  }
  for (int k = 0; k < 2; ++k)
    if (p_.eps_gradient[k]) rows_.store(p_.eps_gradient[k], z, y, memory_.by_eps + k * rows_.pitch);
  if (!whole_rows_) rows_.add_products(memory_.value, weight, sums_);
}

template <typename T>
void March<T>::compute_adjoint(int64_t z, int64_t y) {
  AdjointRow<T>& r = adjoint_arguments_;
  r.begin = rows_.begin;
  r.end = (piece_.pairs - 1) * rows_.pair_pitch + rows_.end;
  r.sign_y[0] = taps_.beyond(0, y == 0);
  r.sign_y[1] = taps_.beyond(1, y + 1 == p_.size[3]);
  for (int g = 0; g < gradients_; ++g) {
    for (int dy = 0; dy < 3; ++dy) {
      const T* const rows = cotangents(g, y + dy - 1);
      for (int axis = 0; axis < p_.dim; ++axis) r.cotangent[axis][dy] = rows + axis * rows_.pitch;
    }
    r.carried = gradient_row(g, 0, y);
    r.running = gradient_row(g, 1, y);
    // The first plane of cotangents may complete a plane that is not in the box: to be thrown away.
    const View& view = p_.gradient[g];
    const bool in_box = z > piece_.box.lo[0];
    const bool direct = in_box && piece_.pairs == 1 && view.stride[4] == 1 &&
                        element_bytes(view.dtype) == sizeof(T);
    T* gradient = nullptr;
    if (direct) gradient = reinterpret_cast<T*>(rows_.address(view, z - 1, y, rows_.around.lo[2]));
    r.gradient = direct && !stream_ ? gradient : memory_.output;
    adjoint_kernel_(r);
    if (direct && stream_) {
      const size_t bytes = size_t(r.end - r.begin) * sizeof(T);
      stream_copy(memory_.output + r.begin, bytes, gradient + r.begin);
    } else if (in_box && !direct) {
      rows_.store(view, z - 1, y, memory_.output);
    }
  }
}

template <typename T>
double March<T>::march_plane(int64_t z) {
  const Box &box = piece_.box, &around = rows_.around;
  const auto in_box = [&](int64_t y) { return y >= box.lo[1] && y < box.hi[1]; };
  const bool counts = z >= box.lo[0] && z < box.hi[0];
  point_at_plane(z);
  std::fill_n(sums_, kLanes, 0.0);
  images_.prepare_row(z + 1, around.lo[1] - 1);
  images_.prepare_row(z + 1, around.lo[1]);
  for (int64_t y = around.lo[1]; y <= around.hi[1]; ++y) {
    if (y < around.hi[1]) {
      images_.prepare_row(z + 1, y + 1);
      const bool is_summed = counts && in_box(y);
      // Rows of which a part counts are summed by reduce_row, also where there is no margin around
      // that part because no gradient is asked for: the loss is to have the same bits.
      cotangent_arguments_.sums = is_summed && whole_rows_ ? sums_ : not_summed_;
      compute_cotangents(z, y);
      if (is_summed) reduce_row(z, y);
    }
    if (gradients_ > 0 && in_box(y - 1)) compute_adjoint(z, y - 1);
  }
  double sum = 0;
  for (const double lane : sums_) sum += lane;
  return sum;
}

// -------------------------------------------------------------------------------------------------
// All planes
// -------------------------------------------------------------------------------------------------

template <typename T>
void March<T>::run(double* partials) {
  std::fill_n(memory_.gradients - kPad, gradient_rows() * rows_.pitch, T(0));

  const Box &box = piece_.box, &around = rows_.around;
  for (int64_t z = std::max<int64_t>(around.lo[0] - 1, 0); z <= around.lo[0]; ++z) {
    for (int64_t y = around.lo[1] - 1; y <= around.hi[1]; ++y) images_.prepare_row(z, y);
  }
  for (int64_t z = around.lo[0]; z < around.hi[0]; ++z) {
    const double sum = march_plane(z);
    if (z >= box.lo[0] && z < box.hi[0]) partials[(z - box.lo[0]) * piece_.partial_stride] += sum;
  }
  if (box.hi[0] == p_.size[2]) store_last_plane();
  if (stream_) stream_fence();
}

// The last plane of the array is complete without a plane after it.
template <typename T>
void March<T>::store_last_plane() {
  for (int g = 0; g < gradients_; ++g) {
    for (int64_t y = piece_.box.lo[1]; y < piece_.box.hi[1]; ++y)
      rows_.store(p_.gradient[g], p_.size[2] - 1, y, gradient_row(g, 1, y));
  }
}

template class March<float>;
template class March<double>;

}  // namespace nec::cpu
