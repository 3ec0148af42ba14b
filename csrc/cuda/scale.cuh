// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The scaling of a gradient in place by scalars that only the GPU knows. That is all that backward
// does: the sweep has written the gradient of the loss already.
#pragma once

#include "sums.cuh"

namespace nec::cuda {

// gradient *= upstream * factor
template <typename T>
struct Scale {
  static constexpr int kMostThreads = kSumThreads;
  JoinedArray gradient;
  Array upstream, factor;  // scalars; no factor: 1

  // A scalar in device memory, of float32 or float64.
  static NEC_DEVICE T scalar(const Array& a) {
    return a.dtype == DType::float64 ? T(*reinterpret_cast<const double*>(a.data))
                                     : T(*reinterpret_cast<const float*>(a.data));
  }
  NEC_DEVICE void run(void*) const {
    T scale = scalar(upstream);
    if (factor) scale *= scalar(factor);
    if (scale == 1) return;  // as it is after loss.backward()
    with_image_type<T>(gradient.array.dtype, [&](auto element) {
      using S = decltype(element);
      gradient.for_each_strip<S, Strip<T>::size>([&](const auto& packed, char* row, int x) {
        store_strip_of<S>(gradient.array, row, x, 0, gradient.size[kAxes - 1],
                          scale * convert<T>(packed));
      });
    });
  }
};

}  // namespace nec::cuda
