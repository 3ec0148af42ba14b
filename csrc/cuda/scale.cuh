// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The scaling of a gradient in place by scalars that only the GPU knows. That is all that backward
// does: the sweep has written the gradient of the loss already.
#pragma once

#include "joined_array.cuh"

namespace nec::cuda {

// gradient *= upstream * factor
struct ScaleArguments {
  JoinedArray gradient;
  Array upstream, factor;  // scalars; no factor: 1
};

template <typename T>
struct Scale {
  using Arguments = ScaleArguments;
  // A scalar in device memory, of float32 or float64.
  static NEC_DEVICE T scalar(const Array& a) {
    return a.dtype == DType::float64 ? T(*reinterpret_cast<const double*>(a.data))
                                     : T(*reinterpret_cast<const float*>(a.data));
  }
  static NEC_DEVICE void run(const Arguments& a, void*) {
    T scale = scalar(a.upstream);
    if (a.factor) scale *= scalar(a.factor);
    if (scale == 1) return;  // as it is after loss.backward()
    constexpr int N = Strip<T>::size;
    const Array& array = a.gradient.array;
    with_image_type<T>(array.dtype, [&](auto element) {
      using S = decltype(element);
      a.gradient.template for_each_strip<S, N>([&](const auto& packed, char* row, int x) {
        Strip<T> strip = convert<T>(packed);
        NEC_UNROLL
        for (T& value : strip.v) value *= scale;
        store_strip_of<S>(array, row, x, 0, a.gradient.size[kAxes - 1], strip);
      });
    });
  }
};

}  // namespace nec::cuda
