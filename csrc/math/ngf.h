// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The alignment t of two normalized gradients and the derivative of l = 1 - t^2 / 2, at one voxel.
//
// With d = grad I, e = grad J, a = |d|, b = |e| and eps > 0:
//
//   additive    n = d / (a + eps)            Jaouen et al. 2024, equation (4)
//   quadrature  n = d / sqrt(a^2 + eps^2)    Haber and Modersitzki 2006
//
//   t = <n(I), n(J)>,    dl/dd = cross e + self_d d,    dl/de = cross d + self_e e
//
// The derivative is a combination of d and e in both modes; a voxel needs these three factors and
// nothing else. Where a = 0 also t = 0, so every factor is 0 and no voxel divides 0 by 0.
#pragma once

#include <cfloat>

#include "common.h"

namespace nec {

// The formulas below share square roots and quotients between factors. The price is a product of up
// to four lengths, which leaves the range of a float long before a length does. Inside these limits
// no product overflows or loses its digits; whoever is outside (`in_range` is false) computes the
// voxel again in a wider type.
template <typename T>
struct Range {  // long double: there is nothing wider to go to
  static constexpr T eps_min = T(LDBL_MIN), eps_max = T(LDBL_MAX), squares_max = T(LDBL_MAX);
};
template <>
struct Range<double> {
  static constexpr double eps_min = 1e-60, eps_max = 1e60, squares_max = 1e120;
};
template <>
struct Range<float> {
  static constexpr float eps_min = 1e-9f, eps_max = 1e9f, squares_max = 1e18f;
};

NEC_INLINE float square_root(float x) { return __builtin_sqrtf(x); }
NEC_INLINE double square_root(double x) { return __builtin_sqrt(x); }
#if !defined(__CUDACC__)
NEC_INLINE long double square_root(long double x) { return __builtin_sqrtl(x); }
#endif

template <typename T>
struct Term {
  T t;                      // <n(I), n(J)>
  T cross, self_d, self_e;  // the factors of the two derivatives
  bool in_range;            // false: overflow, a NaN or an infinity; t and the factors mean nothing
};

template <int Dim, typename T>
NEC_INLINE T dot(const Vec<Dim, T>& p, const Vec<Dim, T>& q) {
  T sum = p.v[0] * q.v[0];
#pragma GCC unroll 3
  for (int k = 1; k < Dim; ++k) sum += p.v[k] * q.v[k];
  return sum;
}

template <EpsMode Mode, int Dim, typename T>
NEC_INLINE Term<T> ngf_term(const Vec<Dim, T>& d, const Vec<Dim, T>& e, T eps_d, T eps_e) {
  const T aa = dot(d, d), bb = dot(e, e), p = dot(d, e);
  Term<T> term;
  term.in_range = aa + bb < Range<T>::squares_max;
  if constexpr (Mode == EpsMode::additive) {
    const T a = square_root(aa), b = square_root(bb);
    const T q = T(1) / ((a + eps_d) * (b + eps_e));
    term.t = p * q;
    term.cross = -term.t * q;
    // dl/dd = -t q (e - d p / (a (a + eps))), and p q = t.
    const T tt = term.t * term.t;
    term.self_d = a > 0 ? tt / ((a + eps_d) * a) : T(0);
    term.self_e = b > 0 ? tt / ((b + eps_e) * b) : T(0);
  } else {
    const T squared_d = aa + eps_d * eps_d, squared_e = bb + eps_e * eps_e;
    const T q = T(1) / square_root(squared_d * squared_e);
    term.t = p * q;
    term.cross = -term.t * q;
    // dl/dd = -t q (e - d p / A^2). The quotient t^2 / A^2 is (t q)^2 B^2: no second division.
    // Multiplied in this order, since (t q)^2 alone vanishes where the images are large.
    term.self_d = term.cross * (term.cross * squared_e);
    term.self_e = term.cross * (term.cross * squared_d);
  }
  return term;
}

}  // namespace nec
