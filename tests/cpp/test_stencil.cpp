// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// csrc/math/stencil.h: the operators against a table of weights, and each adjoint against its
// operator.

#include <random>
#include <utility>

#include "check.h"
#include "dense.h"
#include "math/stencil.h"

namespace {

using dense::Size;
using nec::Operator;
using nec::Stencil;
using Values = std::vector<double>;

std::mt19937 generator(1);

Values random_values(int64_t n) {
  std::uniform_real_distribution<double> uniform(-1, 1);
  Values values(static_cast<size_t>(n));
  for (double& value : values) value = uniform(generator);
  return values;
}

std::string name(Operator op, int dim, const Size& n) {
  return "operator " + std::to_string(int(op)) + ", " + std::to_string(dim) + "D, " +
         std::to_string(n[2]) + "x" + std::to_string(n[3]) + "x" + std::to_string(n[4]);
}

// The image around a voxel, continued by replication: what the callers of `gradient` have to
// supply.
auto image_at(const Values& f, const Size& n, int64_t z, int64_t y, int64_t x) {
  return [&f, &n, z, y, x](int dz, int dy, int dx) {
    const int64_t cz = std::clamp<int64_t>(z + dz, 0, n[2] - 1);
    const int64_t cy = std::clamp<int64_t>(y + dy, 0, n[3] - 1);
    const int64_t cx = std::clamp<int64_t>(x + dx, 0, n[4] - 1);
    return f[size_t((cz * n[3] + cy) * n[4] + cx)];
  };
}

// The factor of a component along its own axis, where an index may lie beyond the border.
template <Operator Op>
int continuation(int64_t index, int64_t length) {
  return index < 0         ? Stencil<Op>::continuation[0]
         : index >= length ? Stencil<Op>::continuation[1]
                           : 1;
}

// The gradient at a voxel from the planes of cotangents around it.
template <Operator Op, int Dim>
double adjoint_at(const std::vector<Values>& g, const Size& n, int64_t z, int64_t y, int64_t x) {
  double sum = 0;
  for (int dz = -1; dz <= 1; ++dz) {
    const int64_t plane = std::clamp<int64_t>(z + dz, 0, n[2] - 1);
    const auto part =
        Stencil<Op>::template plane_adjoint<Dim, double>([&](int axis, int dy, int dx) {
          const int k = dense::position(axis, Dim);
          const int sign = k == 1   ? continuation<Op>(y + dy, n[3])
                           : k == 2 ? continuation<Op>(x + dx, n[4])
                                    : 1;
          return sign * image_at(g[size_t(axis)], n, plane, y, x)(0, dy, dx);
        });
    sum += Stencil<Op>::in_plane_taps[dz + 1] * part.in_plane +
           Stencil<Op>::along_z_taps[dz + 1] * continuation<Op>(z + dz, n[2]) * part.along_z;
  }
  return sum;
}

template <Operator Op, int Dim>
void test_adjoint(const Size& n) {
  const int64_t voxels = dense::count(n);
  const Values f = random_values(voxels);
  std::vector<Values> g;
  for (int k = 0; k < Dim; ++k) {
    g.push_back(random_values(voxels));
    // Where a difference is 0 whatever the image, as a forward one is at the last voxel, so is the
    // derivative of the loss: the adjoint may take the cotangent to be 0 there.
    dense::for_each_voxel(n, [&](int64_t, int64_t z, int64_t y, int64_t x, int64_t i) {
      const auto d = Stencil<Op>::template gradient<Dim, double>(image_at(f, n, z, y, x));
      if (d.v[k] == 0) g.back()[size_t(i)] = 0;
    });
  }
  double forward = 0, backward = 0;
  dense::for_each_voxel(n, [&](int64_t, int64_t z, int64_t y, int64_t x, int64_t i) {
    const auto d = Stencil<Op>::template gradient<Dim, double>(image_at(f, n, z, y, x));
    for (int k = 0; k < Dim; ++k) forward += d.v[k] * g[size_t(k)][size_t(i)];
    backward += f[size_t(i)] * adjoint_at<Op, Dim>(g, n, z, y, x);
  });
  CHECK_NEAR(forward, backward, 1e-12, name(Op, Dim, n));
}

// One voxel of the 27 is 1 and the others 0: the gradient is that entry of the table.
template <Operator Op, int Dim>
void test_weights() {
  for (int64_t one = 0; one < 27; ++one) {
    const int dz = int(one / 9) - 1, dy = int(one / 3 % 3) - 1, dx = int(one % 3) - 1;
    if (Dim == 2 && dy != 0) continue;
    const auto d = Stencil<Op>::template gradient<Dim, double>(
        [&](int z, int y, int x) { return z == dz && y == dy && x == dx ? 1.0 : 0.0; });
    for (int k = 0; k < Dim; ++k) {
      CHECK_NEAR(d.v[k] * Stencil<Op>::axis_scale,
                 dense::kernel(Op, Dim, k)[dz + 1][dy + 1][dx + 1], 0,
                 name(Op, Dim, {}) + ", axis " + std::to_string(k));
    }
  }
}

// On a ramp every operator gives the slopes, whatever it smooths over.
template <Operator Op, int Dim>
void test_ramp() {
  const double slope[3] = {2, Dim == 3 ? 3.0 : 5.0, 5};
  const auto d = Stencil<Op>::template gradient<Dim, double>(
      [](int dz, int dy, int dx) { return 7.0 + 2 * dz + 3 * dy + 5 * dx; });
  for (int k = 0; k < Dim; ++k) {
    CHECK_NEAR(d.v[k] * Stencil<Op>::axis_scale, slope[k], 0, name(Op, Dim, {}));
  }
}

template <Operator Op>
void test_operator() {
  test_weights<Op, 2>();
  test_weights<Op, 3>();
  test_ramp<Op, 2>();
  test_ramp<Op, 3>();
  constexpr int64_t kLengths[] = {1, 2, 3, 4, 5, 8};
  for (const int64_t z : kLengths) {
    for (const int64_t x : kLengths) {
      test_adjoint<Op, 2>({1, 1, z, 1, x});
      for (const int64_t y : kLengths) test_adjoint<Op, 3>({1, 1, z, y, x});
    }
  }
}

template <int... Operators>
void test_operators(std::integer_sequence<int, Operators...>) {
  (test_operator<Operator(Operators)>(), ...);
}

}  // namespace

int main() {
  test_operators(std::make_integer_sequence<int, nec::kOperators>());
  return check::finish("test_stencil");
}
