// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// Arrays of any type and layout, one call of the sweep with random contents in them, and its
// comparison with dense.h.
#pragma once

#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "dense.h"
#include "math/convert.h"
#include "problem.h"

namespace sweep_case {

using dense::Array;
using dense::Real;
using dense::Size;
using nec::Box;
using nec::DType;
using nec::EpsMode;
using nec::Form;
using nec::Operator;
using nec::Problem;
using nec::View;

enum class Layout { contiguous, channels_last, gaps, transposed };

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
    bytes_.assign(size_t(stride) * size_t(nec::element_bytes(dtype)), kUntouched);
  }

  View view() {
    view_.data = bytes_.data();
    return view_;
  }
  const std::vector<char>& bytes() const { return bytes_; }
  DType dtype() const { return view_.dtype; }

  // Whether nothing but the voxels of a box has been written since the construction.
  bool untouched_outside(const nec::Box& box) {
    const std::vector<char> written = bytes_;
    dense::for_each_voxel(images_, [&](int64_t image, int64_t z, int64_t y, int64_t x, int64_t) {
      if (dense::inside(box, z, y, x))
        std::memset(address(image, z, y, x), kUntouched, size_t(nec::element_bytes(view_.dtype)));
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
    return bytes_.data() + size_t(element) * size_t(nec::element_bytes(view_.dtype));
  }

  Size images_{};
  View view_;
  std::vector<char> bytes_;
};

// A backend is csrc/cpu or csrc/cuda, under test. `sweep` returns the sum over the window of
// mask * value, of which the loss is made (math/form.h).
struct Backend {
  std::function<double(const Problem&)> sweep, mask_sum;
};
inline Backend backend;

constexpr Size kAbsent{};  // of a map: there is none

struct Case {
  int dim = 3;
  Operator op = Operator::central;
  EpsMode mode = EpsMode::additive;
  Form form = Form::squared;
  Size size{2, 2, 5, 6, 7};
  DType dtype[2] = {DType::float32, DType::float32};  // of input and target and of their gradients
  Layout layout[2] = {Layout::contiguous, Layout::contiguous};
  double amplitude = 1, eps[2] = {0.15, 0.3};
  Size eps_size[2] = {kAbsent, kAbsent}, mask_size = kAbsent, upstream_size = kAbsent;
  DType map_dtype = DType::float32;
  int gradients = 2;
  bool loss_map = false, by_eps = false, isotropic = false;
  bool always_wide = false;  // float64 arithmetic, as for an eps that float32 cannot hold
  Box window{};              // empty: everything

  Box part() const { return window.hi[0] ? window : Box{{0, 0, 0}, {size[2], size[3], size[4]}}; }
  bool has_float64() const { return dtype[0] == DType::float64 || dtype[1] == DType::float64; }
  bool wide() const { return always_wide || has_float64(); }
  DType map_type() const { return has_float64() ? DType::float64 : DType::float32; }
  std::string name() const {
    char text[300];
    std::snprintf(
        text, sizeof text,
        "%dD %ldx%ldx%ldx%ldx%ld, operator %d, mode %d, form %d, dtypes %d %d, layouts %d %d, "
        "gradients %d, map %d, amplitude %g, eps %g %g",
        dim, long(size[0]), long(size[1]), long(size[2]), long(size[3]), long(size[4]), int(op),
        int(mode), int(form), int(dtype[0]), int(dtype[1]), int(layout[0]), int(layout[1]),
        gradients, loss_map, amplitude, eps[0], eps[1]);
    return text;
  }
};

// The buffers of a case and the problem that points into them.
struct Run {
  Case c;
  Strided image[2], eps[2], mask, upstream, gradient[2], loss_map, by_eps[2];
  Problem problem{};
  std::mt19937 generator{4};

  Real uniform(Real low, Real high) {
    return std::uniform_real_distribution<Real>(low, high)(generator);
  }

  explicit Run(const Case& from) : c(from) {
    Problem& p = problem;
    p.dim = c.dim;
    p.op = c.op;
    p.mode = c.mode;
    p.form = c.form;
    p.wide = c.wide();
    std::copy(c.size.begin(), c.size.end(), p.size);
    const double scale[3] = {0.5, c.dim == 3 ? 1.25 : 2, 2};
    for (int k = 0; k < 3; ++k) p.axis_scale[k] = c.isotropic ? 2 : scale[k];
    p.window = c.part();
    p.gradient_scale = 0.7;
    p.weight = 1.3;
    for (int m : {0, 1}) {
      image[m] = Strided(c.dtype[m], c.layout[m], c.size, c.size);
      image[m].fill(random_image(c.amplitude));
      p.image[m] = image[m].view();
      p.eps[m] = c.eps[m];
      add_map(c.eps_size[m], c.map_dtype, 0.05L, 1, eps[m], p.eps_map[m]);
      if (m >= c.gradients) continue;
      gradient[m] = Strided(c.dtype[m], c.layout[m], c.size, c.size);
      p.gradient[m] = gradient[m].view();
    }
    add_map(c.mask_size, c.map_dtype, 0, 2, mask, p.mask);
    add_map(c.upstream_size, DType::float32, -1, 1, upstream, p.upstream);
    const auto add_output = [&](Strided& buffer, View& view) {
      buffer = Strided(c.map_type(), Layout::contiguous, c.size, c.size);
      view = buffer.view();
    };
    if (c.loss_map) add_output(loss_map, p.loss_map);
    for (int m = 0; m < 2 && c.by_eps; ++m) add_output(by_eps[m], p.eps_gradient[m]);
  }

  // Noise with a constant corner, where the length of the gradient is 0, and a second image that is
  // not independent of the first.
  Array random_image(Real amplitude) {
    Array values;
    dense::for_each_voxel(c.size, [&](int64_t, int64_t z, int64_t y, int64_t x, int64_t i) {
      const bool constant = z < c.size[2] / 2 && y <= c.size[3] / 2 && x <= c.size[4] / 2;
      const Real pattern = Real(i * 7 % 11) / 11;
      values.push_back(amplitude * (constant ? 0.25L : pattern + uniform(-0.5L, 0.5L)));
    });
    return values;
  }

  void add_map(const Size& own, DType dtype, Real low, Real high, Strided& buffer, View& view) {
    if (own == kAbsent) return;
    buffer = Strided(dtype, Layout::contiguous, c.size, own);
    Array values(size_t(dense::count(c.size)));
    for (Real& value : values) value = uniform(low, high);
    buffer.fill(values);
    view = buffer.view();
  }

  Real sweep() const { return backend.sweep(problem); }

  dense::Outputs expected() {
    const Problem& p = problem;
    const Array ones(size_t(dense::count(c.size)), 1);
    dense::Inputs in{p.dim, p.op, p.mode, p.form,   c.size,           {},      {},
                     {},    ones, ones,   p.window, p.gradient_scale, p.weight};
    std::copy(p.axis_scale, p.axis_scale + 3, in.axis_scale);
    for (int m : {0, 1}) {
      in.image[m] = image[m].values();
      in.eps[m] = p.eps_map[m] ? eps[m].values() : Array(ones.size(), p.eps[m]);
    }
    if (p.mask) in.mask = mask.values();
    if (p.upstream) in.upstream = upstream.values();
    return dense::evaluate(in);
  }
};

// Half a unit in the last place of a number that is stored in a type.
inline Real rounding(DType stored, Real value) {
  switch (stored) {
    case DType::float16: return std::max(0x1p-11L * std::fabs(value), 0x1p-25L);
    case DType::bfloat16: return 0x1p-8L * std::fabs(value);
    case DType::float32: return 0x1p-24L * std::fabs(value);
    default: return 0x1p-53L * std::fabs(value);
  }
}

// Reports the first voxel that is wrong: the others would say the same.
inline void compare(Strided& got, const Array& want, const Case& c, const std::string& what) {
  const Real digits = c.wide() ? 1e-13L : 2e-6L;
  Real largest = 0;
  for (const Real value : want) largest = std::max(largest, std::fabs(value));
  const Array values = got.values();
  bool ok = true;
  dense::for_each_voxel(c.size, [&](int64_t, int64_t z, int64_t y, int64_t x, int64_t index) {
    const size_t i = size_t(index);
    if (!ok || !dense::inside(c.part(), z, y, x)) return;
    const Real most = digits * largest + rounding(got.dtype(), want[i]);
    ok = std::fabs(values[i] - want[i]) <= most;  // false for a NaN
    CHECK_NEAR(values[i], want[i], most, what + " at " + std::to_string(i) + ": " + c.name());
  });
  CHECK(got.untouched_outside(c.part()), what + ": " + c.name());
}

// Everything that the sweep gives against dense.h.
inline void check_case(const Case& c) {
  Run run(c);
  const dense::Outputs want = run.expected();
  const Real sum = run.sweep(), digits = c.wide() ? 1e-13L : 1e-6L;
  const Real voxels = Real(dense::count(c.size));
  CHECK_NEAR(sum, want.sum, digits * std::max(std::fabs(want.sum), voxels / 100),
             "sum: " + c.name());
  for (int m = 0; m < c.gradients; ++m)
    compare(run.gradient[m], want.gradient[m], c, m ? "target's gradient" : "input's gradient");
  if (c.loss_map) compare(run.loss_map, want.loss_map, c, "loss map");
  for (int m = 0; m < 2 && c.by_eps; ++m)
    compare(run.by_eps[m], want.by_eps[m], c, m ? "gradient by target_eps" : "gradient by eps");
  if (run.problem.mask) {
    CHECK_NEAR(backend.mask_sum(run.problem), want.mask_sum, digits * want.mask_sum,
               "sum of the mask: " + c.name());
  }
}

}  // namespace sweep_case
