// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// Reads the maps of a march: eps of both images, and the weight of a voxel, which is mask times
// upstream. Bad values become NaN (math/voxel.h).
#pragma once

#include "images.h"

namespace nec::cpu {

template <typename T>
class Maps {
 public:
  static constexpr int64_t kRows = 4;  // of scratch memory

  Maps(const PieceRows<T>& rows, T* scratch);

  // Loads what is the same for all rows: eps in units of `eps_scale`, weights of 1.
  void load_constant(T eps_scale);
  // Loads what is not. False where an eps is outside of Range<T>.
  bool load_row(int64_t z, int64_t y) { return varies_ ? load_varying(z, y) : constant_in_range_; }
  void load_weight(int64_t z, int64_t y);

  const T* eps(int image) const { return eps_[image]; }
  const T* weight() const { return weight_; }

 private:
  bool load_varying(int64_t z, int64_t y);
  bool load_eps(int image, int64_t z, int64_t y);

  const PieceRows<T>& rows_;
  T eps_scale_ = 1;
  bool constant_in_range_ = true;
  bool varies_;                      // something has to be loaded for every row
  bool shared_eps_;                  // both images have the same
  T *eps_[2], *weight_, *upstream_;  // a row each
};

}  // namespace nec::cpu
