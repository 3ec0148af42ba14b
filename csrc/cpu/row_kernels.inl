// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The row loops themselves. Included once by each file that names an instruction set; everything is
// in an unnamed namespace, so that no two of those files share a function.

#include <type_traits>

#include "row_kernels.h"

#include "../math/convert.h"
#include "../math/ngf.h"
#include "../math/stencil.h"

namespace nec::cpu {
namespace {

// -------------------------------------------------------------------------------------------------
// Staging: any dtype and stride into a contiguous row of T, and back
// -------------------------------------------------------------------------------------------------

template <typename T, typename S>
void load_row(const void* src_, int64_t stride, int64_t n, T* __restrict dst) {
  const S* __restrict src = static_cast<const S*>(src_);
  if (stride == 1) {  // its own loop: only this one becomes vector loads
    for (int64_t i = 0; i < n; ++i) dst[i] = load_as<T>(src[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) dst[i] = load_as<T>(src[i * stride]);
  }
}

template <typename T, typename D>
void store_row(const T* __restrict src, int64_t n, void* dst_, int64_t stride) {
  D* __restrict dst = static_cast<D*>(dst_);
  if (stride == 1) {
    for (int64_t i = 0; i < n; ++i) store_as(src[i], dst[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) store_as(src[i], dst[i * stride]);
  }
}

// -------------------------------------------------------------------------------------------------
// The field dl/dd, its adjoint, and the sum
// -------------------------------------------------------------------------------------------------

// A local copy of the row pointers lets the compiler keep them in registers.
template <typename T, int N>
struct Rows {
  const T* row[N][3];
  explicit NEC_INLINE Rows(const T* const (&from)[N][3]) {
    for (int k = 0; k < N; ++k)
      for (int y = 0; y < 3; ++y) row[k][y] = from[k][y];
  }
};

// `A` is the type of the arithmetic: T, or a wider one for the rare row that needs it. Where all
// axes have the same spacing, no difference needs a factor: t depends on the ratio of differences
// to eps alone, so eps takes it.
template <typename T, typename A, int Dim, Operator Op, EpsMode Mode, Gradients Wanted,
          bool Isotropic>
bool field_row(const FieldRow<T>& r) {
  const Rows<T, 3> input(r.input), target(r.target);
  const T *eps_input = r.eps_input, *eps_target = r.eps_target, *weight = r.weight;
  T* squared_alignment = r.squared_alignment;
  T *field_input[3], *field_target[3];
  A axis_scale[3];
  const A gradient_scale = A(r.gradient_scale);
  for (int k = 0; k < 3; ++k) {
    field_input[k] = r.field_input[k];
    field_target[k] = r.field_target[k];
    axis_scale[k] = A(r.axis_scale[k]);
  }
  // As wide as a T: another width would cost a conversion per vector.
  using Flag = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  Flag outside = 0;
  const int64_t length =
      r.length / kLanes * kLanes;  // tells the compiler that there is no remainder
  NEC_IVDEP
  for (int64_t x = 0; x < length; ++x) {
    const auto gradient = [&](const Rows<T, 3>& rows) NEC_INLINE_LAMBDA {
      Vec<Dim, A> g =
          Stencil<Op>::template gradient<Dim, A>([&](int dz, int dy, int dx) NEC_INLINE_LAMBDA {
            return rows.row[dz + 1][dy + 1][x + dx];
          });
      if constexpr (!Isotropic) {
        for (int k = 0; k < Dim - 1; ++k) g.v[k] *= axis_scale[k];
      }
      return g;
    };
    const Vec<Dim, A> d = gradient(input), e = gradient(target);
    const Term<A> term = ngf_term<Mode>(d, e, A(eps_input[x]), A(eps_target[x]));
    outside |= term.in_range ? Flag(0) : Flag(1);
    squared_alignment[x] = T(term.t * term.t);
    const A scale = A(weight[x]) * gradient_scale, cross = scale * term.cross;
    const A self_d = scale * term.self_d, self_e = scale * term.self_e;
#pragma GCC unroll 3
    for (int k = 0; k < Dim; ++k) {
      const A axis = Isotropic || k == Dim - 1 ? A(1) : axis_scale[k];
      if constexpr (Wanted != Gradients::none)
        field_input[k][x] = T(axis * (cross * e.v[k] + self_d * d.v[k]));
      if constexpr (Wanted == Gradients::both)
        field_target[k][x] = T(axis * (cross * d.v[k] + self_e * e.v[k]));
    }
  }
  return outside == 0;
}

template <typename T, int Dim, Operator Op>
void adjoint_row(const AdjointRow<T>& r) {
  using S = Stencil<Op>;
  const Rows<T, 3> rows(r.field);
  const T sign_below = r.sign_y[0], sign_above = r.sign_y[2];
  const T own_in_plane = r.own[0], own_along_z = r.own[1];
  T *carried = r.carried, *running = r.running, *gradient = r.gradient;
#pragma omp simd
  for (int64_t x = r.begin; x < r.end; ++x) {
    const PlaneAdjoint<T> p =
        S::template plane_adjoint<Dim, T>([&](int axis, int dy, int dx) NEC_INLINE_LAMBDA {
          const T value = rows.row[axis][dy + 1][x + dx];
          if (Dim == 2 || axis != 1 || dy == 0) return value;
          return (dy < 0 ? sign_below : sign_above) * value;
        });
    T below = running[x], above = T(S::adjoint_taps[0]) * p.along_z;
    if constexpr (S::adjoint_taps[2] != 0) below += T(S::adjoint_taps[2]) * p.along_z;
    if constexpr (S::spread[0] != 0) {
      below += T(S::spread[2]) * p.in_plane;
      above += T(S::spread[0]) * p.in_plane;
    }
    gradient[x] = below;
    running[x] = carried[x] + own_in_plane * p.in_plane + own_along_z * p.along_z;
    carried[x] = above;
  }
}

// Summed in double, in a fixed number of running sums: the order depends on the instruction set and
// on nothing else.
template <typename T>
double weighted_sum(const T* values, const T* weight, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += double(values[i]) * double(weight[i]);
  return sum;
}

// -------------------------------------------------------------------------------------------------
// Tables
// -------------------------------------------------------------------------------------------------

// The wide rows, for which a multiplication by 1 is nothing, have no copy for equal spacings.
template <typename T, typename A, int Dim, Operator Op, EpsMode Mode, Gradients Wanted>
void fill_spacings(typename RowKernels<T>::Field (&field)[2]) {
  field[0] = field_row<T, A, Dim, Op, Mode, Wanted, false>;
  field[1] = field_row<T, A, Dim, Op, Mode, Wanted, std::is_same_v<T, A>>;
}

template <typename T, typename A, int Dim, Operator Op, EpsMode Mode>
void fill_gradients(typename RowKernels<T>::Field (&field)[kGradients][2]) {
  fill_spacings<T, A, Dim, Op, Mode, Gradients::none>(field[0]);
  fill_spacings<T, A, Dim, Op, Mode, Gradients::input>(field[1]);
  fill_spacings<T, A, Dim, Op, Mode, Gradients::both>(field[2]);
}

template <typename T, typename A, int Dim>
void fill_fields(typename RowKernels<T>::Field (&field)[kOperators][kModes][kGradients][2]) {
  constexpr auto additive = EpsMode::additive, quadrature = EpsMode::quadrature;
  fill_gradients<T, A, Dim, Operator::central, additive>(field[0][0]);
  fill_gradients<T, A, Dim, Operator::central, quadrature>(field[0][1]);
  fill_gradients<T, A, Dim, Operator::forward, additive>(field[1][0]);
  fill_gradients<T, A, Dim, Operator::forward, quadrature>(field[1][1]);
  fill_gradients<T, A, Dim, Operator::sobel, additive>(field[2][0]);
  fill_gradients<T, A, Dim, Operator::sobel, quadrature>(field[2][1]);
}

template <typename T, int Dim>
void fill_adjoints(typename RowKernels<T>::Adjoint (&adjoint)[kOperators]) {
  adjoint[0] = adjoint_row<T, Dim, Operator::central>;
  adjoint[1] = adjoint_row<T, Dim, Operator::forward>;
  adjoint[2] = adjoint_row<T, Dim, Operator::sobel>;
}

template <typename T>
RowKernels<T> make_row_kernels() {
  RowKernels<T> k{{load_row<T, double>, load_row<T, float>, load_row<T, Half>,
                   load_row<T, BFloat16>, load_row<T, uint8_t>},
                  {store_row<T, double>, store_row<T, float>, store_row<T, Half>,
                   store_row<T, BFloat16>, nullptr},
                  {},
                  {},
                  weighted_sum<T>};
  fill_fields<T, T, 2>(k.field[0]);
  fill_fields<T, T, 3>(k.field[1]);
  fill_adjoints<T, 2>(k.adjoint[0]);
  fill_adjoints<T, 3>(k.adjoint[1]);
  return k;
}

}  // namespace
}  // namespace nec::cpu
