// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The row loops themselves. Included once by each file that names an instruction set; everything is
// in an unnamed namespace, so that no two of those files share a function.

#include <type_traits>
#include <utility>

#include "row_kernels.h"

#include "../math/convert.h"
#include "../math/ngf.h"
#include "../math/stencil.h"
#include "../math/voxel.h"
#include "lanes.h"

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
// Maps
// -------------------------------------------------------------------------------------------------

template <typename N, typename T>
NEC_INLINE Truth<N> scale_eps_at(T* eps, T scale) {
  const N scaled = checked_eps(load<N>(eps) * N(scale));
  store(scaled, eps);
  return eps_in_range(scaled);
}

template <typename T>
bool scale_eps_row(T* eps, int64_t n, T scale) {
  using N = Lanes<T>;
  Truth<N> in_range = N(T(0)) < N(T(1));
  int64_t x = 0;
  for (; x + N::size <= n; x += N::size) in_range = in_range & scale_eps_at<N>(eps + x, scale);
  bool rest_in_range = true;
  for (; x < n; ++x) rest_in_range &= scale_eps_at<T>(eps + x, scale);
  return all(in_range) && rest_in_range;
}

template <typename T>
void check_mask_row(T* mask, int64_t n) {
  using N = Lanes<T>;
  int64_t x = 0;
  for (; x + N::size <= n; x += N::size) store(checked_mask(load<N>(mask + x)), mask + x);
  for (; x < n; ++x) mask[x] = checked_mask(mask[x]);
}

// -------------------------------------------------------------------------------------------------
// The cotangents dl/dd, their adjoint, and the sum
// -------------------------------------------------------------------------------------------------

// A local copy of the row pointers lets the compiler keep them in registers.
template <typename T>
struct RowPointers {
  const T* row[3][3];
  explicit NEC_INLINE RowPointers(const T* const (&from)[3][3]) {
    for (int k = 0; k < 3; ++k)
      for (int y = 0; y < 3; ++y) row[k][y] = from[k][y];
  }
};

// For a stencil that looks beside the axes: its columns, of the x from begin to end. Each is
// computed once and serves three voxels.
template <typename T, int Dim, typename F>
NEC_INLINE void fill_columns(int64_t begin, int64_t end, T* const (&columns)[3], const F& column) {
  T *const smooth = columns[0], *const along_z = columns[1], *const along_y = columns[2];
  for (int64_t x = begin; x < end; x += Lanes<T>::size) {
    const auto c = column(x);
    store(c.smooth, smooth + x);
    store(c.z, along_z + x);
    if constexpr (Dim == 3) store(c.y, along_y + x);
  }
}

template <int Dim, class S, typename T>
NEC_INLINE typename S::template Column<Lanes<T>> column_at(T* const (&columns)[3], int64_t x) {
  using N = Lanes<T>;
  return {load<N>(columns[0] + x), load<N>(columns[1] + x),
          Dim == 3 ? load<N>(columns[2] + x) : N(0)};
}

// The columns of a row of an image.
template <typename T, int Dim, class S>
NEC_INLINE void fill_image_columns(const RowPointers<T>& rows, int64_t length,
                                   T* const (&columns)[3]) {
  using N = Lanes<T>;
  fill_columns<T, Dim>(-N::size, length + 1, columns, [&](int64_t x) NEC_INLINE_LAMBDA {
    return S::template column<Dim, N>(
        [&](int dz, int dy) NEC_INLINE_LAMBDA { return load<N>(rows.row[dz + 1][dy + 1] + x); });
  });
}

// Named components, because gcc keeps no array in registers from one round of a loop to the next.
template <int Dim, typename N>
NEC_INLINE Vec<Dim, N> make_vector(N z, N y, N x) {
  if constexpr (Dim == 2) {
    return {z, x};
  } else {
    return {z, y, x};
  }
}

// Writes the outputs of a row of cotangents. Pointers and factors are copied, as RowPointers are.
template <typename T, typename A, int Dim, Formula F, Gradients Wanted, bool Isotropic>
struct RowOutput {
  using N = Number<T, A>;
  T *value, *by_eps_input, *by_eps_target, *input[3], *target[3];
  N axis_scale[3], gradient_scale, eps_scale;

  explicit NEC_INLINE RowOutput(const CotangentRow<T>& r)
      : value(r.value),
        by_eps_input(r.by_eps[0]),
        by_eps_target(r.by_eps[1]),
        gradient_scale(A(r.gradient_scale)),
        eps_scale(A(r.eps_scale)) {
    for (int k = 0; k < 3; ++k) {
      input[k] = r.cotangent_input[k];
      target[k] = r.cotangent_target[k];
      axis_scale[k] = A(r.axis_scale[k]);
    }
  }

  // The voxels from x on; `w` is their weight.
  NEC_INLINE void put(int64_t x, const Vec<Dim, N>& d, const Vec<Dim, N>& e, const Term<N>& term,
                      N w) const {
    store(term.value, value + x);
    if constexpr (has_any_form(F)) {
      const N scale = w * eps_scale;
      store(scale * term.by_eps_d, by_eps_input + x);
      store(scale * term.by_eps_e, by_eps_target + x);
    }
    const N scale = w * gradient_scale, cross = scale * term.cross;
    const N self_d = scale * term.self_d, self_e = scale * term.self_e;
#pragma GCC unroll 3
    for (int k = 0; k < Dim; ++k) {
      const auto put_component = [&](N component, T* row) NEC_INLINE_LAMBDA {
        if (!Isotropic && k < Dim - 1) component *= axis_scale[k];
        store(component, row + x);
      };
      if constexpr (Wanted != Gradients::none)
        put_component(cotangent(cross, e.v[k], self_d, d.v[k]), input[k]);
      if constexpr (Wanted == Gradients::both)
        put_component(cotangent(cross, d.v[k], self_e, e.v[k]), target[k]);
    }
  }
};

// `A` is the type of the arithmetic: T, or a wider one for the rare row that needs it. Where all
// axes have the same spacing, no difference needs a factor: t depends on the ratio of differences
// to eps alone, so eps takes it.
template <typename T, typename A, int Dim, Operator Op, Formula F, Gradients Wanted, bool Isotropic>
bool cotangent_row(const CotangentRow<T>& r) {
  using N = Number<T, A>;
  using S = Stencil<Op>;
  constexpr bool has_columns = !S::on_axes && std::is_same_v<T, A>;
  const RowPointers<T> input(r.input), target(r.target);
  const T *eps_input = r.eps_input, *eps_target = r.eps_target, *weight = r.weight;
  const RowOutput<T, A, Dim, F, Wanted, Isotropic> output(r);
  const FormFactors<N> form{A(r.form.square), A(r.form.linear), A(r.form.absolute),
                            A(r.form.augmented), A(r.form.cross)};
  if constexpr (has_columns) {
    fill_image_columns<T, Dim, S>(input, r.length, r.columns[0]);
    fill_image_columns<T, Dim, S>(target, r.length, r.columns[1]);
  }
  const auto gradient = [&](const RowPointers<T>& rows, int image, int64_t x) NEC_INLINE_LAMBDA {
    Vec<Dim, N> g;
    if constexpr (has_columns) {
      const auto& columns = r.columns[image];
      g = S::template across<Dim, N>(column_at<Dim, S>(columns, x - 1),
                                     column_at<Dim, S>(columns, x),
                                     column_at<Dim, S>(columns, x + 1));
    } else {
      g = S::template gradient<Dim, N>([&](int dz, int dy, int dx) NEC_INLINE_LAMBDA {
        return load<N>(rows.row[dz + 1][dy + 1] + x + dx);
      });
    }
    if constexpr (!Isotropic) {
      for (int k = 0; k < Dim - 1; ++k) g.v[k] *= output.axis_scale[k];
    }
    return g;
  };
  // Voxels are begun before those before them are finished: while a processor waits for the roots
  // of the latter, it has the former to do. In 2D there is no y, and Dim / 2 names x once more.
  N d_z, d_y, d_x, e_z, e_y, e_x;
  Products<N> begun;
  const auto begin = [&](int64_t x) NEC_INLINE_LAMBDA {
    const Vec<Dim, N> d = gradient(input, 0, x), e = gradient(target, 1, x);
    const N eps_d = load<N>(eps_input + x), eps_e = load<N>(eps_target + x);
    begun = make_products<is_additive(F)>(d, e, eps_d, eps_e);
    d_z = d.v[0], d_y = d.v[Dim / 2], d_x = d.v[Dim - 1];
    e_z = e.v[0], e_y = e.v[Dim / 2], e_x = e.v[Dim - 1];
  };
  Truth<N> in_range = N(A(0)) < N(A(1));
  N sum = A(0);
  begin(0);
  for (int64_t x = 0; x < r.length; x += kNumbers<N>) {
    const Vec<Dim, N> d = make_vector<Dim>(d_z, d_y, d_x), e = make_vector<Dim>(e_z, e_y, e_x);
    const Products<N> products = begun;
    // After the last ones there are none: the last are begun again, in vain, which no other number
    // depends on, and nothing beyond the row is read.
    begin(x + kNumbers<N> < r.length ? x + kNumbers<N> : x);
    const N eps_d = load<N>(eps_input + x), eps_e = load<N>(eps_target + x);
    const Term<N> term = ngf_term<F>(d, e, products, eps_d, eps_e, form);
    in_range = in_range & term.in_range;
    const N w = load<N>(weight + x);
    sum += w * term.value;
    output.put(x, d, e, term, w);
  }
  // There is no wider type than a wide one: what is not in its range shows in the sum.
  const bool holds = all(in_range);
  if (holds || !std::is_same_v<T, A>) add_lanes(sum, r.sums);
  return holds;
}

template <typename T, int Dim, Operator Op>
void adjoint_row(const AdjointRow<T>& r) {
  using N = Lanes<T>;
  using S = Stencil<Op>;
  const RowPointers<T> rows(r.cotangent);
  const N sign_below = r.sign_y[0], sign_above = r.sign_y[1];
  const N own_in_plane = r.own_taps[0], own_along_z = r.own_taps[1];
  T *carried = r.carried, *running = r.running, *gradient = r.gradient;
  const auto cotangent = [&](int axis, int dy, int64_t x) NEC_INLINE_LAMBDA {
    const N value = load<N>(rows.row[axis][dy + 1] + x);
    if (Dim == 2 || axis != 1 || dy == 0) return value;
    return (dy < 0 ? sign_below : sign_above) * value;
  };
  if constexpr (!S::on_axes) {
    fill_columns<T, Dim>(r.begin - N::size, r.end + 1, r.columns, [&](int64_t x) NEC_INLINE_LAMBDA {
      return S::template adjoint_column<Dim, N>(
          [&](int axis, int dy) NEC_INLINE_LAMBDA { return cotangent(axis, dy, x); });
    });
  }
  for (int64_t x = r.begin; x < r.end; x += N::size) {
    PlaneAdjoint<N> p;
    if constexpr (S::on_axes) {
      p = S::template plane_adjoint<Dim, N>(
          [&](int axis, int dy, int dx) NEC_INLINE_LAMBDA { return cotangent(axis, dy, x + dx); });
    } else {
      p = S::template adjoint_across<Dim, N>(column_at<Dim, S>(r.columns, x - 1),
                                             column_at<Dim, S>(r.columns, x),
                                             column_at<Dim, S>(r.columns, x + 1));
    }
    N below = load<N>(running + x), above = N(T(S::along_z_taps[0])) * p.along_z;
    if constexpr (S::along_z_taps[2] != 0) below += N(T(S::along_z_taps[2])) * p.along_z;
    if constexpr (S::in_plane_taps[0] != 0) {
      below += N(T(S::in_plane_taps[2])) * p.in_plane;
      above += N(T(S::in_plane_taps[0])) * p.in_plane;
    }
    store(load<N>(carried + x) + own_in_plane * p.in_plane + own_along_z * p.along_z, running + x);
    store(above, carried + x);
    if (x + N::size <= r.end) {
      store(below, gradient + x);
    } else {  // the user's row may end here
      T rest[N::size];
      store(below, rest);
      for (int64_t i = x; i < r.end; ++i) gradient[i] = rest[i - x];
    }
  }
}

// Sums in double and in a fixed number of running sums: the order depends on the instruction set
// and on nothing else.
template <typename T>
double sum_row(const T* values, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += double(values[i]);
  return sum;
}

// The sum of cotangent_row, in the same way, of a row of which only a part counts.
template <typename T>
void add_products(const T* values, const T* weight, int64_t n, double* sums) {
  using N = Lanes<T>;
  N sum = T(0);
  int64_t x = 0;
  for (; x + N::size <= n; x += N::size) sum += load<N>(weight + x) * load<N>(values + x);
  add_lanes(sum, sums);
  for (; x < n; ++x) *sums += double(weight[x]) * double(values[x]);
}

// -------------------------------------------------------------------------------------------------
// Tables
// -------------------------------------------------------------------------------------------------

// Equal spacings have a copy of their own where multiplications by 1 count: not among the wide
// rows, and not among those of any form.
template <typename T, typename A, int Dim, Operator Op, Formula F, Gradients Wanted>
void fill_spacings(typename RowKernels<T>::Cotangent (&cotangent)[2]) {
  constexpr bool has_copy = std::is_same_v<T, A> && !has_any_form(F);
  cotangent[0] = cotangent_row<T, A, Dim, Op, F, Wanted, false>;
  cotangent[1] = cotangent_row<T, A, Dim, Op, F, Wanted, has_copy>;
}

template <typename T, typename A, int Dim, Operator Op, Formula F>
void fill_gradients(typename RowKernels<T>::Cotangent (&cotangent)[kGradients][2]) {
  fill_spacings<T, A, Dim, Op, F, Gradients::none>(cotangent[0]);
  fill_spacings<T, A, Dim, Op, F, Gradients::input>(cotangent[1]);
  fill_spacings<T, A, Dim, Op, F, Gradients::both>(cotangent[2]);
}

template <typename T, typename A, int Dim, Operator Op, int... Formulas>
void fill_formulas(typename RowKernels<T>::Cotangent (&cotangent)[kFormulas][kGradients][2],
                   std::integer_sequence<int, Formulas...>) {
  (fill_gradients<T, A, Dim, Op, Formula(Formulas)>(cotangent[Formulas]), ...);
}

template <typename T, typename A, int Dim, int... Operators>
void fill_cotangents(
    typename RowKernels<T>::Cotangent (&cotangent)[kOperators][kFormulas][kGradients][2],
    std::integer_sequence<int, Operators...>) {
  (fill_formulas<T, A, Dim, Operator(Operators)>(cotangent[Operators],
                                                 std::make_integer_sequence<int, kFormulas>()),
   ...);
}

template <typename T, int Dim, int... Operators>
void fill_adjoints(typename RowKernels<T>::Adjoint (&adjoint)[kOperators],
                   std::integer_sequence<int, Operators...>) {
  ((adjoint[Operators] = adjoint_row<T, Dim, Operator(Operators)>), ...);
}

using AllOperators = std::make_integer_sequence<int, kOperators>;

template <typename T>
RowKernels<T> make_row_kernels() {
  RowKernels<T> k{{load_row<T, double>, load_row<T, float>, load_row<T, Half>,
                   load_row<T, BFloat16>, load_row<T, uint8_t>},
                  {store_row<T, double>, store_row<T, float>, store_row<T, Half>,
                   store_row<T, BFloat16>, nullptr},
                  scale_eps_row<T>,
                  check_mask_row<T>,
                  {},
                  {},
                  sum_row<T>,
                  add_products<T>};
  fill_cotangents<T, T, 2>(k.cotangent[0], AllOperators());
  fill_cotangents<T, T, 3>(k.cotangent[1], AllOperators());
  fill_adjoints<T, 2>(k.adjoint[0], AllOperators());
  fill_adjoints<T, 3>(k.adjoint[1], AllOperators());
  return k;
}

}  // namespace
}  // namespace nec::cpu
