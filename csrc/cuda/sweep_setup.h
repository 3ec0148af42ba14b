// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// From a Problem to the kernel of its options and to what that kernel is told.
#pragma once

#include "ngf_sweep.cuh"

namespace nec::cuda {

// Names a sweep as a value.
template <class Sweep>
struct Kernel {
  using type = Sweep;
};

inline Gradients wanted_gradients(const Problem& p) {
  return p.gradient[1] ? Gradients::both : p.gradient[0] ? Gradients::input : Gradients::none;
}

template <typename T>
Layout layout_of(const Problem& p) {
  if (!p.is_whole(p.terms) || !p.is_whole(p.window) || p.eps_view[0] || p.eps_view[1] || p.mask ||
      p.upstream || p.loss_map)
    return Layout::general;
  bool plain = p.size[4] % Strip<T>::size == 0;
  for (const View& view : {p.image[0], p.image[1], p.gradient[0], p.gradient[1]}) {
    plain &= !view ||
             (view.dtype == DType::float32 && make_array(view, Strip<T>::size).whole_strips);
  }
  for (int k = 1; k < p.dim; ++k) plain &= p.axis_scale[k] == p.axis_scale[0];
  return plain ? Layout::plain : Layout::loose;
}

// Calls f(Kernel<Sweep>()) with the sweep of a problem.
template <typename T, int Dim, class S, Gradients Wanted, typename F>
auto with_layout(const Problem& p, const F& f) {
  if constexpr (sizeof(T) == 4) {
    const Layout layout = layout_of<T>(p);
    if (layout == Layout::plain) return f(Kernel<NgfSweep<T, Dim, S, Wanted, Layout::plain>>());
    if (layout == Layout::loose) return f(Kernel<NgfSweep<T, Dim, S, Wanted, Layout::loose>>());
  }
  return f(Kernel<NgfSweep<T, Dim, S, Wanted, Layout::general>>());
}

template <typename T, int Dim, class S, typename F>
auto with_gradients(const Problem& p, const F& f) {
  switch (wanted_gradients(p)) {
    case Gradients::none: return with_layout<T, Dim, S, Gradients::none>(p, f);
    case Gradients::input: return with_layout<T, Dim, S, Gradients::input>(p, f);
    case Gradients::both: break;
  }
  return with_layout<T, Dim, S, Gradients::both>(p, f);
}

template <typename T, int Dim, typename F>
auto with_sweep(const Problem& p, const F& f) {
  return with_stencil(
      p.op, [&](auto stencil) { return with_gradients<T, Dim, decltype(stencil)>(p, f); });
}

template <class Sweep>
Tiling make_sweep_tiling(const Problem& p, int multiprocessors, int64_t shared_bytes_of_a_block) {
  const int64_t most = Sweep::most_threads(shared_bytes_of_a_block);
  return make_tiling(
      p, {multiprocessors, int(most), Sweep::kStrip, wanted_gradients(p) != Gradients::none});
}

inline IntBox int_box(const Box& box) {
  IntBox result;
  for (int k = 0; k < 3; ++k) {
    result.lo[k] = int(box.lo[k]);
    result.hi[k] = int(box.hi[k]);
  }
  return result;
}

// Without the partial sums, the factor and the gradient scale, which the caller knows.
template <typename T>
SweepArguments<T> make_sweep_arguments(const Problem& p, const Tiling& tiling) {
  constexpr int strip = Strip<T>::size;
  SweepArguments<T> a{};
  a.tiling = tiling;
  a.channels = int(p.size[1]);
  a.depth = int(p.size[2]);
  a.height = int(p.size[3]);
  a.width = int(p.size[4]);
  a.terms = int_box(p.terms);
  a.window = int_box(p.window);
  a.mode = p.mode;
  a.mask = make_array(p.mask, strip);
  a.upstream = make_array(p.upstream, strip);
  a.loss_map = make_array(p.loss_map, strip);
  a.weight = T(p.weight);
  // An eps in differences along the last axis spares that axis a factor.
  const double unit = p.axis_scale[p.dim - 1];
  for (int k = 0; k < p.dim; ++k) a.axis_scale[k] = T(p.axis_scale[k] / unit);
  const double eps_scale =
      with_stencil(p.op, [&](auto stencil) { return 1 / (unit * stencil.axis_scale); });
  a.eps_scale = T(eps_scale);
  a.eps_in_range = true;
  for (int k = 0; k < 2; ++k) {
    a.image[k] = make_array(p.image[k], strip);
    a.gradient[k] = make_array(p.gradient[k], strip);
    a.eps_map[k] = make_array(p.eps_view[k], strip);
    a.eps[k] = T(p.eps[k] * eps_scale);
    if (!p.eps_view[k])
      a.eps_in_range &= a.eps[k] >= Range<T>::eps_min && a.eps[k] <= Range<T>::eps_max;
  }
  return a;
}

// A box of an array as rows (sums.cuh), with as few axes as its strides allow. Axes that the array
// broadcasts are left out; `repeats` says how many voxels share an element.
template <typename T>
Rows make_rows(View view, const int64_t (&size)[kAxes], const Box& box, double* repeats) {
  struct Axis {
    int64_t length, stride;
  };
  Axis axes[kAxes] = {};  // by stride
  int count = 0;
  int64_t offset = 0;
  *repeats = 1;
  for (int k = 0; k < kAxes; ++k) {
    const int64_t low = k < 2 ? 0 : box.lo[k - 2];
    const int64_t length = (k < 2 ? size[k] : box.hi[k - 2]) - low;
    offset += low * view.stride[k];
    if (view.stride[k] == 0) {
      *repeats *= double(length);
    } else if (length > 1) {
      int at = count++;
      for (; at > 0 && axes[at - 1].stride > view.stride[k]; --at) axes[at] = axes[at - 1];
      axes[at] = {length, view.stride[k]};
    }
  }
  constexpr int64_t kLongest = int64_t(1) << 30;
  int last = 0;  // of those that are left
  for (int k = 1; k < count; ++k) {
    Axis& before = axes[last];
    if (axes[k].stride == before.stride * before.length &&
        before.length * axes[k].length <= kLongest) {
      before.length *= axes[k].length;
    } else {
      axes[++last] = axes[k];
    }
  }
  Rows rows{};
  view.data = static_cast<char*>(view.data) + offset * element_bytes(view.dtype);
  rows.count = 1;
  for (int k = 0; k < kAxes; ++k) {
    const Axis axis = k < count && k <= last ? axes[k] : Axis{1, k == 0 ? 1 : 0};
    view.stride[kAxes - 1 - k] = axis.stride;
    rows.size[kAxes - 1 - k] = int(axis.length);
    rows.count *= k == 0 ? ceil_div(axis.length, int64_t(Strip<T>::size)) : axis.length;
  }
  rows.strips = ceil_div(rows.size[kAxes - 1], Strip<T>::size);
  rows.array = make_array(view, Strip<T>::size);
  return rows;
}

}  // namespace nec::cuda
