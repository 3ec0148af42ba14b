// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The difference operators at one voxel, and their adjoints.
//
// `image(dz, dy, dx)` returns the image at an offset of -1, 0 or 1 along each axis. In 2D the axes
// are (z, x) and dy is always 0. Borders are the caller's: the image is continued by replication.
//
// `field(axis, dz, dy, dx)` returns component `axis` of the field g = dl/dd at an offset. The adjoint of
// a difference with replicated border is the same difference of a field that is continued with the
// opposite sign beyond the border along its own axis, and with the same sign along the others:
//
//   central   (D f)[i] = (f[i+1] - f[i-1]) / 2     (D* g)[i] = (g[i-1] - g[i+1]) / 2,  g[-1] = -g[0]
//   forward   (D f)[i] =  f[i+1] - f[i]            (D* g)[i] =  g[i-1] - g[i],         g[-1] = 0
//   sobel     central along the axis, [1 2 1] / 4 along the others (symmetric, its own adjoint)
//
// `continuation` is that factor below the first voxel; above the last one it is -1 for central and
// Sobel, and forward never looks there. The division by the spacing, and the 1/2 of a central
// difference, are a factor per axis (`axis_scale`) that the callers multiply in once.
#pragma once

#include "common.h"

namespace nec {

template <Operator Op>
struct Stencil;

// Central and forward differ in two offsets; the voxels they read all lie on the axis.
template <int Lower, int Upper>
struct AxisDifference {
  template <int Dim, typename T, typename Image>
  static NEC_INLINE Vec<Dim, T> gradient(const Image& image) {
    Vec<Dim, T> d;
    d.v[0] = T(image(Upper, 0, 0)) - T(image(Lower, 0, 0));
    if constexpr (Dim == 3) d.v[1] = T(image(0, Upper, 0)) - T(image(0, Lower, 0));
    d.v[Dim - 1] = T(image(0, 0, Upper)) - T(image(0, 0, Lower));
    return d;
  }

  template <int Dim, typename T, typename Field>
  static NEC_INLINE T adjoint(const Field& field) {
    T sum = T(field(0, -Upper, 0, 0)) - T(field(0, -Lower, 0, 0));
    if constexpr (Dim == 3) sum += T(field(1, 0, -Upper, 0)) - T(field(1, 0, -Lower, 0));
    return sum + (T(field(Dim - 1, 0, 0, -Upper)) - T(field(Dim - 1, 0, 0, -Lower)));
  }
};

template <>
struct Stencil<Operator::central> : AxisDifference<-1, 1> {
  static constexpr double axis_scale = 0.5;
  static constexpr int continuation = -1;
};

template <>
struct Stencil<Operator::forward> : AxisDifference<0, 1> {
  static constexpr double axis_scale = 1.0;
  static constexpr int continuation = 0;
};

template <>
struct Stencil<Operator::sobel> {
  static constexpr int continuation = -1;
  static constexpr double axis_scale = 0.5;

  template <typename T>
  static NEC_INLINE T smooth(T lower, T middle, T upper) {
    return T(0.25) * (lower + upper) + T(0.5) * middle;
  }

  // Smoothing of f over y at (dz, dx); in 2D there is no y to smooth over.
  template <int Dim, typename T, typename F>
  static NEC_INLINE T smooth_y(const F& f, int dz, int dx) {
    if constexpr (Dim == 2) {
      return T(f(dz, 0, dx));
    } else {
      return smooth(T(f(dz, -1, dx)), T(f(dz, 0, dx)), T(f(dz, 1, dx)));
    }
  }

  template <int Dim, typename T, typename Image>
  static NEC_INLINE Vec<Dim, T> gradient(const Image& image) {
    Vec<Dim, T> d;
    T smooth_zy[3], difference_z[3], difference_y[3];  // one per dx
    for (int k = 0; k < 3; ++k) {
      const int dx = k - 1;
      const T lower = smooth_y<Dim, T>(image, -1, dx);
      const T upper = smooth_y<Dim, T>(image, 1, dx);
      smooth_zy[k] = smooth(lower, smooth_y<Dim, T>(image, 0, dx), upper);
      difference_z[k] = upper - lower;
      if constexpr (Dim == 3) {
        difference_y[k] = smooth(T(image(-1, 1, dx)), T(image(0, 1, dx)), T(image(1, 1, dx))) -
                          smooth(T(image(-1, -1, dx)), T(image(0, -1, dx)), T(image(1, -1, dx)));
      }
    }
    d.v[0] = smooth(difference_z[0], difference_z[1], difference_z[2]);
    if constexpr (Dim == 3) d.v[1] = smooth(difference_y[0], difference_y[1], difference_y[2]);
    d.v[Dim - 1] = smooth_zy[2] - smooth_zy[0];
    return d;
  }

  template <int Dim, typename T, typename Field>
  static NEC_INLINE T adjoint(const Field& field) {
    const auto x = [&](int dz, int dy, int dx) { return field(Dim - 1, dz, dy, dx); };
    const auto z = [&](int dz, int dy, int dx) { return field(0, dz, dy, dx); };
    T sum = T(0);
    T across[3];  // what is smoothed over x last, one per dx
    for (int k = 0; k < 3; ++k) {
      const int dx = k - 1;
      across[k] = smooth_y<Dim, T>(z, -1, dx) - smooth_y<Dim, T>(z, 1, dx);
      if constexpr (Dim == 3) {
        const auto y = [&](int dz, int dy) { return T(field(1, dz, dy, dx)); };
        across[k] += smooth(y(-1, -1), y(0, -1), y(1, -1)) - smooth(y(-1, 1), y(0, 1), y(1, 1));
      }
      if (dx != 0) {
        const T smooth_zy = smooth(smooth_y<Dim, T>(x, -1, dx), smooth_y<Dim, T>(x, 0, dx),
                                   smooth_y<Dim, T>(x, 1, dx));
        sum += dx < 0 ? smooth_zy : -smooth_zy;
      }
    }
    return sum + smooth(across[0], across[1], across[2]);
  }
};

}  // namespace nec
