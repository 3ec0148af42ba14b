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
using nec::Form;
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

// The loss of a voxel and its derivatives by both vectors and both eps.
struct VoxelLoss {
  Real loss, by_d[3], by_e[3], by_eps[2];
};

// Lengths A and B normalize the vectors. `slope` of a length: its derivative by the vector is the
// vector divided by that; `by_eps`: its derivative by eps, divided by the length.
struct Length {
  Real length, slope, by_eps;

  Length(EpsMode mode, Real a, Real eps)
      : length(mode == EpsMode::additive ? a + eps : std::sqrt(a * a + eps * eps)),
        slope(mode == EpsMode::additive ? a : length),
        by_eps(mode == EpsMode::additive ? 1 / length : eps / (length * length)) {}
};

inline VoxelLoss voxel_loss(EpsMode mode, Form form, int dim, const Real* d, const Real* e,
                            Real eps_d, Real eps_e) {
  Real aa = 0, bb = 0, p = 0;
  for (int k = 0; k < dim; ++k) {
    aa += d[k] * d[k];
    bb += e[k] * e[k];
    p += d[k] * e[k];
  }
  const Length A(mode, std::sqrt(aa), eps_d), B(mode, std::sqrt(bb), eps_e);
  const Real q = 1 / (A.length * B.length);
  VoxelLoss r{};
  // The loss changes by `slope` times t, or for the cross product with p and both lengths.
  if (form == Form::cross) {
    Real cc = 0;
    for (int j = 0; j < dim; ++j)
      for (int k = 0; k < j; ++k) cc += std::pow(d[j] * e[k] - d[k] * e[j], Real(2));
    r.loss = cc * q * q / 2;
    for (int k = 0; k < dim; ++k) {
      r.by_d[k] = (bb * d[k] - p * e[k]) * q * q;
      r.by_e[k] = (aa * e[k] - p * d[k]) * q * q;
      if (aa > 0) r.by_d[k] -= 2 * r.loss * d[k] / (A.slope * A.length);
      if (bb > 0) r.by_e[k] -= 2 * r.loss * e[k] / (B.slope * B.length);
    }
    r.by_eps[0] = -2 * r.loss * A.by_eps;
    r.by_eps[1] = -2 * r.loss * B.by_eps;
    return r;
  }
  const Real sign = form != Form::absolute ? 1 : p > 0 ? 1 : p < 0 ? -1 : 0;
  const bool augmented = mode == EpsMode::augmented, squared = form == Form::squared;
  const Real t = (sign * p + (augmented ? eps_d * eps_e : 0)) * q, slope = squared ? -t : -1;
  r.loss = squared ? 1 - t * t / 2 : 1 - t;
  for (int k = 0; k < dim; ++k) {
    r.by_d[k] = slope * sign * e[k] * q;
    r.by_e[k] = slope * sign * d[k] * q;
    if (aa > 0) r.by_d[k] -= slope * t * d[k] / (A.slope * A.length);
    if (bb > 0) r.by_e[k] -= slope * t * e[k] / (B.slope * B.length);
  }
  r.by_eps[0] = slope * ((augmented ? eps_e * q : 0) - t * A.by_eps);
  r.by_eps[1] = slope * ((augmented ? eps_d * q : 0) - t * B.by_eps);
  return r;
}

// The number that a sweep adds up in place of the loss, as form.h states.
inline Real value_of(Form form, Real loss) {
  if (form == Form::cross) return -2 * loss;
  return form == Form::squared ? 2 * (1 - loss) : 1 - loss;
}

struct Inputs {
  int dim;
  Operator op;
  EpsMode mode;
  Form form;
  Size size;
  double axis_scale[3];
  Array image[2], eps[2], mask, upstream;
  Box window;
  double gradient_scale, weight;
};

struct Outputs {
  Real sum = 0, mask_sum = 0;
  Array loss_map, gradient[2], by_eps[2];  // written in the window only
};

inline Outputs evaluate(const Inputs& in) {
  Outputs out;
  const size_t voxels = size_t(count(in.size));
  for (Array* a :
       {&out.loss_map, &out.gradient[0], &out.gradient[1], &out.by_eps[0], &out.by_eps[1]})
    a->assign(voxels, 0);
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
    const VoxelLoss at =
        voxel_loss(in.mode, in.form, in.dim, gradient[0], gradient[1], in.eps[0][i], in.eps[1][i]);
    const Real weight = in.mask[i] * in.upstream[i];
    if (inside(in.window, z, y, x)) {
      out.sum += weight * value_of(in.form, at.loss);
      out.mask_sum += in.mask[i];
      out.loss_map[i] = in.weight * weight * at.loss;
      for (int m : {0, 1}) out.by_eps[m][i] = weight * in.gradient_scale * at.by_eps[m];
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
