// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors

#include "maps.h"

#include <algorithm>

namespace nec::cpu {

template <typename T>
Maps<T>::Maps(const PieceRows<T>& rows, T* scratch) : rows_(rows) {
  const Problem& p = rows.problem;
  varies_ =
      p.mask || p.upstream || p.eps_map[0].varies_in_space() || p.eps_map[1].varies_in_space();
  for (T** row : {&eps_[0], &eps_[1], &weight_, &upstream_}) {
    *row = scratch;
    scratch += rows.pitch;
  }
  // One map for both images, as it is where only eps is given, is read once.
  const View* map = p.eps_map;
  shared_eps_ = map[0].data == map[1].data && map[0].dtype == map[1].dtype &&
                std::equal(map[0].stride, map[0].stride + kAxes, map[1].stride) &&
                p.eps[0] == p.eps[1];
  if (shared_eps_) eps_[1] = eps_[0];
}

template <typename T>
void Maps<T>::load_constant(T eps_scale) {
  const Problem& p = rows_.problem;
  eps_scale_ = eps_scale;
  for (int image = 0; image < 2 - shared_eps_; ++image) {
    if (!p.eps_map[image].varies_in_space()) constant_in_range_ &= load_eps(image, 0, 0);
  }
  if (!p.mask && !p.upstream) load_weight(0, 0);
}

template <typename T>
bool Maps<T>::load_varying(int64_t z, int64_t y) {
  const Problem& p = rows_.problem;
  bool in_range = constant_in_range_;
  for (int image = 0; image < 2 - shared_eps_; ++image) {
    if (p.eps_map[image].varies_in_space()) in_range &= load_eps(image, z, y);
  }
  if (p.mask || p.upstream) load_weight(z, y);
  return in_range;
}

template <typename T>
bool Maps<T>::load_eps(int image, int64_t z, int64_t y) {
  const View& map = rows_.problem.eps_map[image];
  T* row = eps_[image];
  if (map) {
    rows_.load(map, z, y, row);
  } else {
    std::fill(row, row + rows_.span, T(rows_.problem.eps[image]));
  }
  bool in_range = true;
  for (int64_t i = 0; i < rows_.piece.pairs; ++i)
    in_range &= rows_.kernels.scale_eps(row + i * rows_.pair_pitch, rows_.width, eps_scale_);
  rows_.fill_between(row, T(1));
  return in_range;
}

template <typename T>
void Maps<T>::load_weight(int64_t z, int64_t y) {
  const Problem& p = rows_.problem;
  const int64_t span = rows_.span;
  if (p.mask) {
    rows_.load(p.mask, z, y, weight_);
    if (p.mask.dtype != DType::uint8) rows_.kernels.check_mask(weight_, span);
  } else {
    std::fill(weight_, weight_ + span, T(1));
  }
  if (p.upstream) {
    rows_.load(p.upstream, z, y, upstream_);
    T* __restrict weight = weight_, * __restrict upstream = upstream_;
    for (int64_t x = 0; x < span; ++x) weight[x] *= upstream[x];
  }
  rows_.fill_between(weight_, T(0));
}

template class Maps<float>;
template class Maps<double>;

}  // namespace nec::cpu
