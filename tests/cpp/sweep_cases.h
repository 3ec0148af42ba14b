// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// What every device has to pass: loss, gradients and map against dense.h for every option, type and
// layout, in parts of a volume and with broken values.
#pragma once

#include <array>
#include <limits>
#include <utility>

#include "sweep_case.h"

namespace sweep_case {

// The values of an option that csrc numbers from 0 on.
template <typename Option, int... Numbers>
constexpr std::array<Option, sizeof...(Numbers)> values(std::integer_sequence<int, Numbers...>) {
  return {Option(Numbers)...};
}
inline constexpr auto kAllOperators =
    values<Operator>(std::make_integer_sequence<int, nec::kOperators>());
inline constexpr auto kAllModes = values<EpsMode>(std::make_integer_sequence<int, nec::kModes>());
inline constexpr auto kAllForms = values<Form>(std::make_integer_sequence<int, nec::kForms>());
inline constexpr DType kTypes[] = {DType::float64, DType::float32, DType::float16, DType::bfloat16};
inline constexpr Layout kLayouts[] = {Layout::contiguous, Layout::channels_last, Layout::gaps,
                                      Layout::transposed};

// The cross product has no augmented fields.
inline std::vector<std::pair<EpsMode, Form>> all_forms() {
  std::vector<std::pair<EpsMode, Form>> pairs;
  for (const EpsMode mode : kAllModes)
    for (const Form form : kAllForms)
      if (mode != EpsMode::augmented || form != Form::cross) pairs.emplace_back(mode, form);
  return pairs;
}

// A case of 2D or 3D; in 2D the plane has one row.
inline Case case_of(int dim, Size size = {2, 2, 5, 6, 7}) {
  Case c;
  c.dim = dim;
  c.size = size;
  if (dim == 2) c.size[3] = 1;
  return c;
}

// Every variant of the kernels: all crossings of what is a template argument of one.
inline void test_options() {
  for (const int dim : {2, 3})
    for (const Operator op : kAllOperators)
      for (const auto& [mode, form] : all_forms())
        for (const DType dtype : {DType::float32, DType::float64})
          for (const int gradients : {0, 1, 2})
            for (const bool isotropic : {false, true}) {
              Case c = case_of(dim);
              c.op = op;
              c.mode = mode;
              c.form = form;
              c.dtype[0] = c.dtype[1] = dtype;
              c.gradients = gradients;
              c.isotropic = isotropic;
              c.loss_map = c.by_eps = gradients == 0 && !isotropic;
              check_case(c);
            }
}

// float64 arithmetic on images and outputs of other types.
inline void test_wide() {
  for (const int dim : {2, 3})
    for (const DType input : kTypes)
      for (const DType target : kTypes)
        for (const int gradients : {0, 1, 2}) {
          Case c = case_of(dim, {2, 2, 5, 6, 8});
          c.dtype[0] = input;
          c.dtype[1] = target;
          c.always_wide = true;
          c.gradients = gradients;
          c.loss_map = c.by_eps = gradients == 0;
          check_case(c);
        }
}

inline void test_sizes() {
  for (const Operator op : kAllOperators)
    for (const int64_t z : {1, 2, 3, 5})
      for (const int64_t x : {1, 2, 15, 16, 17, 32, 33})
        for (const int64_t y : {0, 1, 2, 5}) {  // 0: 2D
          Case c = case_of(y ? 3 : 2, {1, 1, z, y, x});
          c.op = op;
          check_case(c);
        }
}

inline void test_types_and_layouts() {
  for (const int dim : {2, 3})
    for (const DType input : kTypes)
      for (const DType target : kTypes)
        for (const Layout layout : kLayouts)
          for (const Layout target_layout : kLayouts) {
            Case c = case_of(dim, dim == 2 ? Size{2, 2, 5, 1, 7} : Size{1, 1, 5, 6, 16});
            c.dtype[0] = input;
            c.dtype[1] = target;
            c.layout[0] = layout;
            c.layout[1] = target_layout;
            check_case(c);
          }
}

inline void test_maps() {
  for (const int dim : {2, 3}) {
    const Case c = case_of(dim);
    const int64_t x = c.size[4];
    const Size sizes[] = {kAbsent,         {1, 1, 1, 1, 1}, {2, 1, 1, 1, 1},
                          {1, 2, 1, 1, 1}, {1, 1, 1, 1, x}, {2, 1, c.size[2], c.size[3], x},
                          c.size};
    for (const Size& one : sizes) {
      for (const Size& other : sizes) {
        Case maps = c;
        maps.eps_size[0] = maps.mask_size = one;
        maps.eps_size[1] = maps.upstream_size = other;
        check_case(maps);
      }
      for (const DType dtype : {DType::float64, DType::float16, DType::bfloat16, DType::uint8}) {
        Case mask = c;
        mask.mask_size = one;
        mask.map_dtype = dtype;
        mask.gradients = 0;
        mask.loss_map = true;
        check_case(mask);
      }
    }
  }
}

inline Box random_box(Run& run, const Size& n) {
  Box box;
  for (int k = 0; k < 3; ++k) {
    const int64_t length = n[size_t(k) + 2];
    box.lo[k] = int64_t(run.uniform(0, 0.999L) * length);
    box.hi[k] = box.lo[k] + 1 + int64_t(run.uniform(0, 0.999L) * (length - box.lo[k]));
  }
  return box;
}

inline void test_windows() {
  Run random{Case()};
  for (int repeat = 0; repeat < 100; ++repeat) {
    for (const int dim : {2, 3}) {
      const bool whole_rows = repeat % 5 == 0;  // of whole vectors, which the CPU reads in place
      Case c = case_of(dim, whole_rows ? Size{1, 1, 7, 6, 16} : Size{1, 2, 7, 6, 20});
      c.op = kAllOperators[size_t(repeat) % kAllOperators.size()];
      c.window = random_box(random, c.size);
      if (whole_rows) {
        c.window.lo[2] = 0;
        c.window.hi[2] = 16;
      }
      if (repeat % 2) c.mask_size = {1, 1, 1, c.size[3], c.size[4]};
      c.loss_map = repeat % 4 == 0;
      if (c.loss_map) c.gradients = 0;
      check_case(c);
    }
  }
}

inline void test_values() {
  for (const auto& pair : all_forms()) {
    const EpsMode mode = pair.first;
    const Form form = pair.second;
    const auto extreme = [&](DType dtype, double amplitude, double eps, double target_eps) {
      Case c;
      c.mode = mode;
      c.form = form;
      c.dtype[0] = c.dtype[1] = dtype;
      c.amplitude = amplitude;
      c.eps[0] = eps;
      c.eps[1] = target_eps;
      check_case(c);
    };
    // Far beyond what float squares can hold, and below.
    for (const double scale : {1e-30, 1e-12, 1e-6, 1e6, 1e12, 1e30})
      for (const double eps : {scale / 4, 0.15}) extreme(DType::float32, scale, scale / 4, eps);
    // Differences beyond the largest number, and at the other end; a GPU has nothing wider than
    // double.
    for (const double eps : {1e-30, 0.15}) extreme(DType::float32, 2e38, eps, eps);
    for (const double eps : {1e-290, 0.15, 1e308}) extreme(DType::float64, 1.1e308, eps, eps);
    extreme(DType::float64, 1e-290, 1e-290, 1e-290);
    extreme(DType::float32, 0, 0.15, 0.15);

    Case c;
    c.mode = mode;
    c.form = form;
    c.mask_size = c.eps_size[0] = c.size;
    const Real nan = std::numeric_limits<Real>::quiet_NaN(),
               infinity = std::numeric_limits<Real>::infinity();
    // A run with one voxel of one of its arrays replaced.
    const auto broken = [&](const auto& array_of, Real value) {
      Run run(c);
      Strided& array = array_of(run);
      Array values = array.values();
      values[values.size() / 2] = value;
      array.fill(values);
      return run;
    };
    for (const Real value : {nan, infinity, -infinity}) {
      for (const int m : {0, 1}) {
        Run run = broken([&](Run& r) -> Strided& { return r.image[m]; }, value);
        CHECK(std::isnan(run.sweep()), "a NaN or an infinity in an image must show");
      }
    }
    for (const Real value : {nan, 0.0L, -0.15L}) {
      Run run = broken([](Run& r) -> Strided& { return r.eps[0]; }, value);
      CHECK(std::isnan(run.sweep()), "an eps that is not positive must show");
    }
    for (const Real value : {nan, -1.0L}) {
      Run run = broken([](Run& r) -> Strided& { return r.mask; }, value);
      CHECK(std::isnan(backend.mask_sum(run.problem)), "a negative weight must show");
      CHECK(std::isnan(run.sweep()), "a negative weight must show");
    }
  }
}

// On the diagonal of a cube all components of the input's gradient are equal, and those of the
// target's, which no difference rounds, add up to 0: what is left of their product is rounding.
inline void test_perpendicular() {
  const int64_t n = 6;
  for (const DType dtype : {DType::float32, DType::float64})
    for (const EpsMode mode : kAllModes)
      for (const double scale : {1e-25, 1.0, 1e25}) {
        Case c = case_of(3, {1, 1, n, n, n});
        c.mode = mode;
        c.form = Form::absolute;
        c.dtype[0] = c.dtype[1] = dtype;
        c.isotropic = true;
        c.mask_size = c.size;
        c.eps[0] = 0.15 * scale;
        c.eps[1] = 0.15;
        Run run(c);
        const auto pattern = [](int64_t z, int64_t y, int64_t x) {
          return Real((9 * z * z + 5 * y * x + 3 * x * x * z) % 31) / 32;
        };
        Array input, target, mask;
        dense::for_each_voxel(c.size, [&](int64_t, int64_t z, int64_t y, int64_t x, int64_t) {
          input.push_back(0.7L * Real(scale) *
                          (pattern(z, y, x) + pattern(y, x, z) + pattern(x, z, y)));
          target.push_back(pattern(z, y, x) - pattern(y, x, z));
          mask.push_back(z == y && y == x);
        });
        run.image[0].fill(input);
        run.image[1].fill(target);
        run.mask.fill(mask);
        const dense::Outputs want = run.expected();
        run.sweep();
        for (int m : {0, 1}) compare(run.gradient[m], want.gradient[m], c, "perpendicular");
      }
}

inline void test_everywhere() {
  test_options();
  test_wide();
  test_sizes();
  test_types_and_layouts();
  test_maps();
  test_windows();
  test_values();
  test_perpendicular();
}

}  // namespace sweep_case
