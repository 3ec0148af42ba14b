// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// Arrays of any type and layout for the tests of the sweep.
#pragma once

#include <cstring>
#include <vector>

#include "dense.h"
#include "math/convert.h"
#include "problem.h"

namespace strided {

using dense::Array;
using dense::Size;
using nec::DType;
using nec::View;

enum class Layout { contiguous, channels_last, gaps, transposed };

inline size_t element_size(DType dtype) {
  constexpr size_t kSizes[nec::kDTypes] = {8, 4, 2, 2, 1};
  return kSizes[int(dtype)];
}

inline double read(DType dtype, const char* from) {
  const auto as = [from](auto value) {
    std::memcpy(&value, from, sizeof value);
    return value;
  };
  switch (dtype) {
    case DType::float64: return as(double());
    case DType::float32: return double(as(float()));
    case DType::float16: return double(nec::to_float(as(nec::Half())));
    case DType::bfloat16: return double(nec::to_float(as(nec::BFloat16())));
    case DType::uint8: return double(as(uint8_t()));
  }
  return 0;
}

inline void write(DType dtype, double value, char* to) {
  const auto as = [to](auto converted) { std::memcpy(to, &converted, sizeof converted); };
  switch (dtype) {
    case DType::float64: return as(value);
    case DType::float32: return as(float(value));
    case DType::float16: return as(nec::to_half(float(value)));
    case DType::bfloat16: return as(nec::to_bfloat16(float(value)));
    case DType::uint8: return as(uint8_t(value > 0.5));
  }
}

// Owns its bytes. An axis of `own` that has length 1 where the images have more is broadcast.
class Strided {
 public:
  Strided() = default;
  Strided(DType dtype, Layout layout, const Size& images, const Size& own) : images_(images) {
    const bool last = layout == Layout::channels_last, transposed = layout == Layout::transposed;
    // Axes from the fastest to the slowest.
    const Size fastest_first = last         ? Size{1, 4, 3, 2, 0}
                               : transposed ? Size{2, 3, 4, 1, 0}
                                            : Size{4, 3, 2, 1, 0};
    view_.dtype = dtype;
    int64_t stride = layout == Layout::gaps ? 3 : 1;
    for (const int64_t axis : fastest_first) {
      view_.stride[axis] = own[size_t(axis)] == 1 ? 0 : stride;
      stride *= own[size_t(axis)];
      if (layout == Layout::gaps) stride += 5;
    }
    bytes_.assign(size_t(stride) * element_size(dtype), kUntouched);
  }

  View view() {
    view_.data = bytes_.data();
    return view_;
  }
  const std::vector<char>& bytes() const { return bytes_; }

  // Whether nothing but the voxels of a box has been written since the construction.
  bool untouched_outside(const nec::Box& box) {
    const std::vector<char> written = bytes_;
    dense::for_each_voxel(images_, [&](int64_t image, int64_t z, int64_t y, int64_t x, int64_t) {
      if (dense::inside(box, z, y, x))
        std::memset(address(image, z, y, x), kUntouched, element_size(view_.dtype));
    });
    const bool untouched =
        std::all_of(bytes_.begin(), bytes_.end(), [](char c) { return c == kUntouched; });
    bytes_ = written;
    return untouched;
  }

  void fill(const Array& values) {
    dense::for_each_voxel(images_, [&](int64_t image, int64_t z, int64_t y, int64_t x, int64_t i) {
      write(view_.dtype, double(values[size_t(i)]), address(image, z, y, x));
    });
  }

  // Broadcast to the images, as the sweep sees them.
  Array values() {
    Array values;
    dense::for_each_voxel(images_, [&](int64_t image, int64_t z, int64_t y, int64_t x, int64_t) {
      values.push_back(read(view_.dtype, address(image, z, y, x)));
    });
    return values;
  }

 private:
  static constexpr char kUntouched = 0x3b;

  char* address(int64_t image, int64_t z, int64_t y, int64_t x) {
    const int64_t sample = image / images_[1], channel = image % images_[1];
    const int64_t element = sample * view_.stride[0] + channel * view_.stride[1] +
                            z * view_.stride[2] + y * view_.stride[3] + x * view_.stride[4];
    return bytes_.data() + size_t(element) * element_size(view_.dtype);
  }

  Size images_{};
  View view_;
  std::vector<char> bytes_;
};

}  // namespace strided
