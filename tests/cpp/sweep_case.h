// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// One call of the sweep with random contents, and its comparison with dense.h.
#pragma once

#include <cstdio>
#include <functional>
#include <random>
#include <string>

#include "check.h"
#include "dense.h"
#include "strided.h"

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
using strided::Layout;
using strided::Strided;

// What is tested: csrc/cpu or csrc/cuda. `sweep` returns the sum of mask * t^2 over the window.
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
  bool always_wide =
      false;     // arithmetic in float64, as an eps may ask for that float32 cannot hold
  Box window{};  // empty: everything

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

inline Box whole(const Size& n) { return {{0, 0, 0}, {n[2], n[3], n[4]}}; }

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
    p.window = c.window.hi[0] == 0 ? whole(c.size) : c.window;
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
    const auto add_output = [&](Strided& buffer, nec::View& view) {
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

  void add_map(const Size& own, DType dtype, Real low, Real high, Strided& buffer,
               nec::View& view) {
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
inline void compare(Strided& got, const Array& want, const Case& c, DType dtype, const Box& window,
                    const std::string& what) {
  const Real digits = c.wide() ? 1e-13L : 2e-6L;
  Real largest = 0;
  for (const Real value : want) largest = std::max(largest, std::fabs(value));
  const Array values = got.values();
  bool ok = true;
  dense::for_each_voxel(c.size, [&](int64_t, int64_t z, int64_t y, int64_t x, int64_t index) {
    const size_t i = size_t(index);
    if (!ok || !dense::inside(window, z, y, x)) return;
    const Real most = digits * largest + rounding(dtype, want[i]);
    ok = std::fabs(values[i] - want[i]) <= most;  // false for a NaN
    CHECK_NEAR(values[i], want[i], most, what + " at " + std::to_string(i) + ": " + c.name());
  });
  CHECK(got.untouched_outside(window), what + ": " + c.name());
}

// Everything that the sweep gives against dense.h.
inline void check_case(const Case& c) {
  Run run(c);
  const dense::Outputs want = run.expected();
  const Real sum = run.sweep(), digits = c.wide() ? 1e-13L : 1e-6L;
  const Real voxels = Real(dense::count(c.size));
  CHECK_NEAR(sum, want.sum, digits * std::max(std::fabs(want.sum), voxels / 100),
             "sum: " + c.name());
  for (int m = 0; m < c.gradients; ++m) {
    compare(run.gradient[m], want.gradient[m], c, c.dtype[m], run.problem.window,
            m ? "gradient of the target" : "gradient of the input");
  }
  if (c.loss_map) {
    compare(run.loss_map, want.loss_map, c, c.map_type(), run.problem.window, "loss map");
  }
  for (int m = 0; m < 2 && c.by_eps; ++m) {
    compare(run.by_eps[m], want.by_eps[m], c, c.map_type(), run.problem.window,
            m ? "gradient by target_eps" : "gradient by eps");
  }
  if (run.problem.mask) {
    CHECK_NEAR(backend.mask_sum(run.problem), want.mask_sum, digits * want.mask_sum,
               "sum of the mask: " + c.name());
  }
}

}  // namespace sweep_case
