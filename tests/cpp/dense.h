// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The loss and its gradient as the formulas say it, one voxel after the other in the widest type:
// what the tests compare csrc with. Of csrc it knows the names of the options and no formula. A
// difference operator is a table of 27 weights, its adjoint a scatter with the same weights.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "problem.h"

namespace dense {

using nec::Box;
using nec::EpsMode;
using nec::Operator;

using Real = long double;
using Array = std::vector<Real>;  // [B, C, Z, Y, X]
using Size = std::array<int64_t, nec::kAxes>;
using Kernel = std::array<std::array<std::array<Real, 3>, 3>, 3>;  // [dz + 1][dy + 1][dx + 1]

// A 2D image has the axes z and x.
inline int position(int axis, int dim) { return dim == 2 && axis == 1 ? 2 : axis; }

// The derivative along an axis, for spacing 1.
inline Kernel kernel(Operator op, int dim, int axis) {
  using Row = std::array<Real, 3>;
  const Row along = op == Operator::forward ? Row{0, -1, 1} : Row{-0.5L, 0, 0.5L};
  const Row across = op == Operator::sobel ? Row{0.25L, 0.5L, 0.25L} : Row{0, 1, 0};
  const Row none{0, 1, 0};
  Row row[3];
  for (int k = 0; k < 3; ++k) {
    row[k] = k == position(axis, dim) ? along : dim == 2 && k == 1 ? none : across;
  }
  Kernel weights;
  for (int z = 0; z < 3; ++z)
    for (int y = 0; y < 3; ++y)
      for (int x = 0; x < 3; ++x) weights[z][y][x] = row[0][z] * row[1][y] * row[2][x];
  return weights;
}

inline int64_t count(const Size& n) { return n[0] * n[1] * n[2] * n[3] * n[4]; }

inline bool inside(const Box& box, int64_t z, int64_t y, int64_t x) {
  return box.lo[0] <= z && z < box.hi[0] && box.lo[1] <= y && y < box.hi[1] && box.lo[2] <= x &&
         x < box.hi[2];
}

// Calls body(image, z, y, x, index) for every voxel; `image` counts samples times channels.
template <typename Body>
void for_each_voxel(const Size& n, const Body& body) {
  int64_t index = 0;
  for (int64_t image = 0; image < n[0] * n[1]; ++image)
    for (int64_t z = 0; z < n[2]; ++z)
      for (int64_t y = 0; y < n[3]; ++y)
        for (int64_t x = 0; x < n[4]; ++x) body(image, z, y, x, index++);
}

// Calls body(weight, index) for every voxel that a kernel touches at a voxel, borders replicated.
template <typename Body>
void for_each_neighbor(const Kernel& w, const Size& n, int64_t image, int64_t z, int64_t y,
                       int64_t x, const Body& body) {
  for (int k = 0; k < 27; ++k) {
    const int dz = k / 9, dy = k / 3 % 3, dx = k % 3;
    if (w[dz][dy][dx] == 0) continue;
    const int64_t nz = std::clamp<int64_t>(z + dz - 1, 0, n[2] - 1);
    const int64_t ny = std::clamp<int64_t>(y + dy - 1, 0, n[3] - 1);
    const int64_t nx = std::clamp<int64_t>(x + dx - 1, 0, n[4] - 1);
    body(w[dz][dy][dx], ((image * n[2] + nz) * n[3] + ny) * n[4] + nx);
  }
}

// Normalized gradient fields of two vectors, t and the derivatives of 1 - t^2 / 2.
struct Alignment {
  Real t, by_d[3], by_e[3];
};

inline Alignment alignment(EpsMode mode, int dim, const Real* d, const Real* e, Real eps_d,
                           Real eps_e) {
  Real aa = 0, bb = 0, p = 0;
  for (int k = 0; k < dim; ++k) {
    aa += d[k] * d[k];
    bb += e[k] * e[k];
    p += d[k] * e[k];
  }
  const Real a = std::sqrt(aa), b = std::sqrt(bb);
  const bool additive = mode == EpsMode::additive;
  const Real A = additive ? a + eps_d : std::sqrt(aa + eps_d * eps_d);
  const Real B = additive ? b + eps_e : std::sqrt(bb + eps_e * eps_e);
  Alignment r{p / (A * B), {}, {}};
  // The derivative of A by d is d / a, and in quadrature d / A.
  const Real slope_d = additive ? a : A, slope_e = additive ? b : B;
  for (int k = 0; k < dim; ++k) {
    if (a > 0) r.by_d[k] = -r.t * (e[k] - d[k] * p / (slope_d * A)) / (A * B);
    if (b > 0) r.by_e[k] = -r.t * (d[k] - e[k] * p / (slope_e * B)) / (A * B);
  }
  return r;
}

struct Inputs {
  int dim;
  Operator op;
  EpsMode mode;
  Size size;
  double axis_scale[3];
  Array image[2], eps[2], mask, upstream;
  Box window;
  double gradient_scale, weight;
};

struct Outputs {
  Real sum = 0, mask_sum = 0;
  Array loss_map, gradient[2];  // written in the window only
};

inline Outputs evaluate(const Inputs& in) {
  Outputs out;
  const size_t voxels = size_t(count(in.size));
  for (Array* a : {&out.loss_map, &out.gradient[0], &out.gradient[1]}) a->assign(voxels, 0);
  Kernel kernels[3];
  for (int k = 0; k < in.dim; ++k) kernels[k] = kernel(in.op, in.dim, k);

  for_each_voxel(in.size, [&](int64_t image, int64_t z, int64_t y, int64_t x, int64_t index) {
    const size_t i = size_t(index);
    Real gradient[2][3] = {};
    for (int k = 0; k < in.dim; ++k) {
      for_each_neighbor(kernels[k], in.size, image, z, y, x, [&](Real w, int64_t neighbor) {
        for (int m : {0, 1}) gradient[m][k] += w * in.axis_scale[k] * in.image[m][size_t(neighbor)];
      });
    }
    const Alignment at =
        alignment(in.mode, in.dim, gradient[0], gradient[1], in.eps[0][i], in.eps[1][i]);
    const Real weight = in.mask[i] * in.upstream[i];
    if (inside(in.window, z, y, x)) {
      out.sum += weight * at.t * at.t;
      out.mask_sum += in.mask[i];
      out.loss_map[i] = in.weight * weight * (1 - at.t * at.t / 2);
    }
    for (int k = 0; k < in.dim; ++k) {
      const Real scale = weight * in.gradient_scale * in.axis_scale[k];
      for_each_neighbor(kernels[k], in.size, image, z, y, x, [&](Real w, int64_t neighbor) {
        out.gradient[0][size_t(neighbor)] += w * scale * at.by_d[k];
        out.gradient[1][size_t(neighbor)] += w * scale * at.by_e[k];
      });
    }
  });
  return out;
}

}  // namespace dense
