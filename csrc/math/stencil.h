// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The difference operators at one voxel, and their adjoints.
//
// `image(dz, dy, dx)` returns the image at an offset of -1, 0 or 1 along each axis. In 2D the axes
// are (z, x) and dy is always 0. Borders are the caller's: the image is continued by replication.
//
// The adjoint gathers the gradient of a voxel from the field g = dl/dd around it:
//
//   central   (D f)[i] = (f[i+1] - f[i-1]) / 2     (D* g)[i] = (g[i-1] - g[i+1]) / 2
//   forward   (D f)[i] =  f[i+1] - f[i]            (D* g)[i] =  g[i-1] - g[i]
//   sobel     central along the axis, [1 2 1] / 4 along the others (symmetric, its own adjoint)
//
// It is cut at the planes, because the kernels march along z: a plane of the field gives each voxel
// of the plane two numbers, `in_plane` from the differences along y and x, and `along_z` from the
// one along z. The gradient of plane z is then the sum, over the planes at dz = -1, 0, 1, of
//
//   spread[dz + 1] in_plane(z + dz) + adjoint_taps[dz + 1] along_z(z + dz)
//
// Beyond the border the field goes on with the same values, those of an axis along that axis times
// `continuation`: [0] before the first voxel, [1] after the last. (After the last voxel a forward
// difference is never asked for; there it is 0 anyway.)
//
// The division by the spacing, and the 1/2 of a central difference, are a factor per axis
// (`axis_scale`) that the callers multiply in once.
#pragma once

#include "common.h"

namespace nec {

template <Operator Op>
struct Stencil;

template <typename T>
struct PlaneAdjoint {
  T in_plane, along_z;
};

// Central and forward differ in two offsets; the voxels they read all lie on the axis.
template <int Lower, int Upper>
struct AxisDifference {
  static constexpr double spread[3] = {0, 1, 0};

  template <int Dim, typename T, typename Image>
  static NEC_INLINE Vec<Dim, T> gradient(const Image& image) {
    Vec<Dim, T> d;
    d.v[0] = T(image(Upper, 0, 0)) - T(image(Lower, 0, 0));
    if constexpr (Dim == 3) d.v[1] = T(image(0, Upper, 0)) - T(image(0, Lower, 0));
    d.v[Dim - 1] = T(image(0, 0, Upper)) - T(image(0, 0, Lower));
    return d;
  }

  // `field(axis, dy, dx)` returns a component of the field in this plane.
  template <int Dim, typename T, typename Field>
  static NEC_INLINE PlaneAdjoint<T> plane_adjoint(const Field& field) {
    T sum = field(Dim - 1, 0, -Upper) - field(Dim - 1, 0, -Lower);
    if constexpr (Dim == 3) sum += field(1, -Upper, 0) - field(1, -Lower, 0);
    return {sum, field(0, 0, 0)};
  }
};

template <>
struct Stencil<Operator::central> : AxisDifference<-1, 1> {
  static constexpr double axis_scale = 0.5;
  static constexpr int adjoint_taps[3] = {1, 0, -1};
  static constexpr int continuation[2] = {-1, -1};
};

template <>
struct Stencil<Operator::forward> : AxisDifference<0, 1> {
  static constexpr double axis_scale = 1.0;
  static constexpr int adjoint_taps[3] = {1, -1, 0};
  static constexpr int continuation[2] = {0, 0};
};

template <>
struct Stencil<Operator::sobel> {
  static constexpr double axis_scale = 0.5;
  static constexpr double spread[3] = {0.25, 0.5, 0.25};
  static constexpr int adjoint_taps[3] = {1, 0, -1};
  static constexpr int continuation[2] = {-1, -1};

  template <typename T>
  static NEC_INLINE T smooth(T lower, T middle, T upper) {
    return T(spread[0]) * (lower + upper) + T(spread[1]) * middle;
  }

  // Smoothing of row(dy) over y; in 2D there is no y to smooth over.
  template <int Dim, typename T, typename Row>
  static NEC_INLINE T smooth_y(const Row& row) {
    if constexpr (Dim == 2) {
      return T(row(0));
    } else {
      return smooth(T(row(-1)), T(row(0)), T(row(1)));
    }
  }

  template <int Dim, typename T, typename Image>
  static NEC_INLINE Vec<Dim, T> gradient(const Image& image) {
    // At one x: smoothed over z and y; the difference along z smoothed over y; and the other way
    // round.
    struct Column {
      T smooth, z, y;
    };
    const auto column = [&](int dx) NEC_INLINE_LAMBDA {
      const auto plane = [&](int dz) NEC_INLINE_LAMBDA {
        return smooth_y<Dim, T>([&](int dy) NEC_INLINE_LAMBDA { return image(dz, dy, dx); });
      };
      const T lower = plane(-1), upper = plane(1);
      Column c{smooth(lower, plane(0), upper), upper - lower, T(0)};
      if constexpr (Dim == 3) {
        const auto row = [&](int dy) NEC_INLINE_LAMBDA {
          return smooth(T(image(-1, dy, dx)), T(image(0, dy, dx)), T(image(1, dy, dx)));
        };
        c.y = row(1) - row(-1);
      }
      return c;
    };
    const Column lower = column(-1), middle = column(0), upper = column(1);
    Vec<Dim, T> d;
    d.v[0] = smooth(lower.z, middle.z, upper.z);
    if constexpr (Dim == 3) d.v[1] = smooth(lower.y, middle.y, upper.y);
    d.v[Dim - 1] = upper.smooth - lower.smooth;
    return d;
  }

  template <int Dim, typename T, typename Field>
  static NEC_INLINE PlaneAdjoint<T> plane_adjoint(const Field& field) {
    const auto smoothed = [&](int axis, int dx) NEC_INLINE_LAMBDA {
      return smooth_y<Dim, T>([&](int dy) NEC_INLINE_LAMBDA { return field(axis, dy, dx); });
    };
    T sum = smoothed(Dim - 1, -1) - smoothed(Dim - 1, 1);
    if constexpr (Dim == 3) {
      const auto difference = [&](int dx)
                                  NEC_INLINE_LAMBDA { return field(1, -1, dx) - field(1, 1, dx); };
      sum += smooth(difference(-1), difference(0), difference(1));
    }
    return {sum, smooth(smoothed(0, -1), smoothed(0, 0), smoothed(0, 1))};
  }
};

// Calls f with a value of type Stencil<Op>: an operator known at run time becomes a type here,
// once.
template <typename F>
auto with_stencil(Operator op, const F& f) {
  switch (op) {
    case Operator::central: return f(Stencil<Operator::central>{});
    case Operator::forward: return f(Stencil<Operator::forward>{});
    case Operator::sobel: break;
  }
  return f(Stencil<Operator::sobel>{});
}

}  // namespace nec
