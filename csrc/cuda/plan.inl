// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// From a Problem to the kernel of its options, its tiling and what that kernel is told, for one
// arithmetic type and dimension. Included by the files that compile them, which are several so that
// a build can use several processors.

#include "launch.cuh"
#include "march.cuh"

namespace nec::cuda {

inline Device current_limits() {
  return once_per_device([] {
    return Device{
        attribute_of_device(cudaDevAttrMultiProcessorCount, "number of multiprocessors"),
        attribute_of_device(cudaDevAttrMaxSharedMemoryPerBlockOptin, "shared memory"),
        attribute_of_device(cudaDevAttrMaxSharedMemoryPerMultiprocessor,
                            "shared memory of a multiprocessor"),
        attribute_of_device(cudaDevAttrReservedSharedMemoryPerBlock, "reserved shared memory")};
  });
}

// How an array gets into the ring: strip by strip what the kernels convert there, which of a mask
// is bool alone.
template <typename T>
Source make_source(const View& view, int64_t width, bool is_mask) {
  constexpr int strip = Strip<T>::size;
  const Array array = make_array(view, strip);
  const int64_t bytes = strip * element_bytes(view.dtype);
  const bool other_type = element_bytes(view.dtype) != sizeof(T);
  const bool by_strips = array.whole_strips && width % strip == 0 && bytes >= 4 && bytes <= 16 &&
                         (!other_type || (view.dtype == DType::uint8) == is_mask);
  return {array, by_strips ? int(bytes) : 0, by_strips && other_type};
}

// Whether a strip of both images is at the same place in a plane, in 32 bits.
inline bool lie_alike(const Problem& p, const Source (&image)[3]) {
  bool alike = image[0].strip_bytes == image[1].strip_bytes;
  int64_t bytes = 0;
  for (int k = 3; k < kAxes; ++k) {
    alike &= image[0].array.stride[k] == image[1].array.stride[k];
    bytes += p.size[k] * image[0].array.stride[k];
  }
  return alike && bytes < int64_t(std::numeric_limits<unsigned>::max());
}

// Whether some strip is summed or written in part.
template <typename T>
bool breaks_strips(const Problem& p) {
  constexpr int64_t strip = Strip<T>::size;
  return p.size[4] % strip != 0 || p.window.lo[2] % strip != 0 || p.window.hi[2] % strip != 0;
}

template <typename T>
bool stages_gradients(const Problem& p) {
  bool staged = false;
  for (const View& gradient : p.gradient) {
    if (gradient)
      staged |= breaks_strips<T>(p) || !make_array(gradient, Strip<T>::size).whole_strips;
  }
  return staged;
}

// Everything that the threads are told but the factor and the partial sums, which the caller knows.
template <class M>
SweepArguments<typename M::T> make_sweep_arguments(const Problem& p, const Plan& plan) {
  using T = typename M::T;
  constexpr int strip = Strip<T>::size, strip_bytes = sizeof(Strip<T>);
  SweepArguments<T> a{};
  a.tiling = plan.tiling;
  a.pitch = plan.cell.pitch(plan.tiling.slots) * strip_bytes;
  a.row_bytes = plan.tiling.strips * a.pitch;
  a.first_slot = plan.cell.cotangent_strips * strip_bytes;
  a.slot_bytes = plan.cell.slot_strips * strip_bytes;
  a.last_slot = a.first_slot + (plan.tiling.slots - 1) * a.slot_bytes;
  a.channels = int(p.size[1]);
  a.depth = int(p.size[2]);
  a.height = int(p.size[3]);
  a.width = int(p.size[4]);
  // 32 bits are enough (check_size in sweep.cu), and spare registers.
  std::copy_n(p.window.lo, 3, a.window_lo);
  std::copy_n(p.window.hi, 3, a.window_hi);
  a.additive = is_additive(p.formula());
  a.form = FormFactors<T>::of(p.mode, p.form);
  a.loss = LossOfValue::of(p.form);
  a.source[2] = make_source<T>(p.mask, p.size[4], true);
  a.upstream = make_array(p.upstream, strip);
  a.loss_map = make_array(p.loss_map, strip);
  a.weight = T(p.weight);
  a.gradient_scale = p.gradient_scale;
  const DifferenceUnits units = difference_units(p.op, p.dim, p.axis_scale);
  for (int k = 0; k < p.dim; ++k) a.axis_scale[k] = T(units.axis_scale[k]);
  const double eps_scale = M::Images::kUnit * units.eps_scale;
  a.eps_scale = T(eps_scale);
  a.eps_in_range = true;
  for (int k = 0; k < 2; ++k) {
    a.source[k] = make_source<T>(p.image[k], p.size[4], false);
    a.gradient[k] = make_array(p.gradient[k], strip);
    a.by_eps[k] = make_array(p.eps_gradient[k], strip);
    a.eps_map[k] = make_array(p.eps_map[k], strip);
    a.eps[k] = T(p.eps[k] * eps_scale);
    if (!p.eps_map[k]) a.eps_in_range &= eps_in_range(a.eps[k]);
  }
  a.staged = stages_gradients<T>(p);
  a.broken_strips = a.staged || breaks_strips<T>(p);
  a.converted = a.source[0].converted || a.source[1].converted;
  if (lie_alike(p, a.source)) a.image_bytes = a.source[0].strip_bytes;
  return a;
}

// Plan::launch of a kernel.
template <class M>
void launch_sweep(const Plan& plan, const Problem& problem, const double* factor, double* partials,
                  Stream stream) {
  const char* name = "launch of the NGF sweep failed";
  Sweep<M> sweep{make_sweep_arguments<M>(problem, plan)};
  sweep.arguments.factor = factor;
  sweep.arguments.partials = partials;
  // Above 48 KB a kernel has to be allowed its shared memory: as much as there is, because that is
  // said once per device.
  once_per_device([&] {
    check(cudaFuncSetAttribute(kernel<Sweep<M>>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               current_limits().shared_bytes),
          name);
    return true;
  });
  launch(sweep, plan.tiling.blocks, plan.tiling.threads(), plan.shared_bytes, stream, name);
}

// The plan of a kernel, which is kept as a function that knows how to launch it: its options are
// not looked at again.
template <class M>
Plan plan_march(const Problem& p) {
  using Cells = typename M::Cells;
  const bool has_gradients = p.wanted_gradients() != Gradients::none;
  const Limits limits{current_limits(),
                      M::kMostThreads,
                      Strip<typename M::T>::size,
                      M::R,
                      Cells::kHaloRows,
                      has_gradients,
                      Cells::sizes(bool(p.mask), stages_gradients<typename M::T>(p))};
  Plan plan{make_tiling(p, limits), limits.cell, 0, 0, launch_sweep<M>};
  if (plan.tiling.threads() == 0)
    throw std::runtime_error("nec_ext: this GPU has too little shared memory for the NGF sweep");
  plan.shared_bytes = cells(plan.tiling, limits) * limits.cell.bytes(plan.tiling.slots);
  return plan;
}

// From here on the options of a problem become types one after the other. So every combination is
// compiled, and no kernel asks for an option but the formula.
template <typename T, int Dim, class S, Variant V>
Plan plan_variant(const Problem& p) {
  if constexpr (V != Variant::general) {
    switch (p.wanted_gradients()) {
      case Gradients::none: return plan_march<March<T, Dim, S, Gradients::none, V>>(p);
      case Gradients::input: return plan_march<March<T, Dim, S, Gradients::input, V>>(p);
      case Gradients::both: break;
    }
  }
  return plan_march<March<T, Dim, S, Gradients::both, V>>(p);
}

// The variant that has no more to look at than the problem asks for. `bare` is what a training step
// gets.
template <typename T, int Dim>
Plan plan_sweep(const Problem& p) {
  return with_stencil(p.op, [&](auto stencil) {
    using S = decltype(stencil);
    const bool has_maps = p.eps_map[0] || p.eps_map[1] || p.upstream || p.loss_map;
    if constexpr (sizeof(T) == 4) {
      if (!has_maps && !has_any_form(p.formula()))
        return p.mask || !p.is_isotropic() ? plan_variant<T, Dim, S, Variant::weighted>(p)
                                           : plan_variant<T, Dim, S, Variant::bare>(p);
    }
    return plan_variant<T, Dim, S, Variant::general>(p);
  });
}

}  // namespace nec::cuda
