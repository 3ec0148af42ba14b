// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// From a Problem to the kernel of its options, its tiling and what that kernel is told, for one
// arithmetic type and dimension. Included by the files that compile them, which are several so that
// a build can use several processors.

#include "launch.cuh"
#include "march.cuh"

namespace nec::cuda {

// Names a march as a value, which a generic lambda can take.
template <class M>
struct Kernel {
  using type = M;
};

// The variant that has no more to look at than the problem asks for. `bare` is what a training step
// gets.
inline Variant variant_of(const Problem& p) {
  if (p.wide || has_any_form(p.formula()) || p.eps_map[0] || p.eps_map[1] || p.upstream ||
      p.loss_map)
    return Variant::general;
  return p.mask || !p.is_isotropic() ? Variant::weighted : Variant::bare;
}

// The functions below turn the options of a problem into types one after the other, and end with
// f(Kernel<March<...>>()). So every combination is compiled, and no kernel asks for an option but
// the formula.
template <typename T, int Dim, class S, Variant V, typename F>
auto with_gradients(const Problem& p, const F& f) {
  if constexpr (V != Variant::general) {
    switch (p.wanted_gradients()) {
      case Gradients::none: return f(Kernel<March<T, Dim, S, Gradients::none, V>>());
      case Gradients::input: return f(Kernel<March<T, Dim, S, Gradients::input, V>>());
      case Gradients::both: break;
    }
  }
  return f(Kernel<March<T, Dim, S, Gradients::both, V>>());
}

template <typename T, int Dim, typename F>
auto with_sweep(const Problem& p, const F& f) {
  return with_stencil(p.op, [&](auto stencil) {
    using S = decltype(stencil);
    if constexpr (sizeof(T) == 4) {
      const Variant variant = variant_of(p);
      if (variant == Variant::bare) return with_gradients<T, Dim, S, Variant::bare>(p, f);
      if (variant == Variant::weighted) return with_gradients<T, Dim, S, Variant::weighted>(p, f);
    }
    return with_gradients<T, Dim, S, Variant::general>(p, f);
  });
}

struct DeviceLimits {
  int multiprocessors;
  int shared_bytes;  // that a block may have at most
};

inline DeviceLimits limits_of_device() {
  static PerDevice<DeviceLimits> limits;
  return limits.get([] {
    return DeviceLimits{
        attribute_of_device(cudaDevAttrMultiProcessorCount, "multiprocessors of the device"),
        attribute_of_device(cudaDevAttrMaxSharedMemoryPerBlockOptin,
                            "shared memory of the device")};
  });
}

// How an array gets into the ring: strip by strip what the kernels convert there, which of a mask
// is bool alone.
template <typename T>
Source make_source(const View& view, int64_t width, bool is_mask) {
  constexpr int strip = Strip<T>::size;
  Source source{make_array(view, strip), 0, false};
  const int64_t bytes = strip * element_bytes(view.dtype);
  source.converted = element_bytes(view.dtype) != sizeof(T);
  const bool convertible = !source.converted || (view.dtype == DType::uint8) == is_mask;
  if (source.array.whole_strips && width % strip == 0 && bytes >= 4 && bytes <= 16 && convertible) {
    source.strip_bytes = int(bytes);
  } else {
    source.converted = false;  // as it is copied
  }
  return source;
}

// 32 bits are enough (check_size in sweep.cu), and spare registers.
inline IntBox int_box(const Box& box) {
  IntBox result;
  for (int k = 0; k < 3; ++k) {
    result.lo[k] = int(box.lo[k]);
    result.hi[k] = int(box.hi[k]);
  }
  return result;
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

template <class M>
Limits limits_of_sweep(const Problem& p) {
  using T = typename M::T;
  const DeviceLimits device = limits_of_device();
  return M::limits(device.multiprocessors, device.shared_bytes,
                   p.wanted_gradients() != Gradients::none, bool(p.mask), stages_gradients<T>(p));
}

// Everything that the threads are told but the partial sums, the factor and the gradient scale,
// which the caller knows.
template <class M>
SweepArguments<typename M::T> make_sweep_arguments(const Problem& p, const Tiling& tiling) {
  using T = typename M::T;
  constexpr int strip = M::kStrip;
  const CellSizes cell = limits_of_sweep<M>(p).cell;
  SweepArguments<T> a{};
  a.tiling = tiling;
  a.pitch = cell.pitch(tiling.slots) * int(sizeof(Strip<T>));
  a.row_bytes = tiling.strips * a.pitch;
  a.first_slot = cell.cotangent_strips * int(sizeof(Strip<T>));
  a.slot_bytes = cell.slot_strips * int(sizeof(Strip<T>));
  a.last_slot = a.first_slot + (tiling.slots - 1) * a.slot_bytes;
  a.channels = int(p.size[1]);
  a.depth = int(p.size[2]);
  a.height = int(p.size[3]);
  a.width = int(p.size[4]);
  a.window = int_box(p.window);
  a.additive = is_additive(p.formula());
  a.form = FormFactors<T>::of(p.mode, p.form);
  a.loss = LossOfValue::of(p.form);
  a.source[2] = make_source<T>(p.mask, p.size[4], true);
  a.upstream = make_array(p.upstream, strip);
  a.loss_map = make_array(p.loss_map, strip);
  for (int k = 0; k < 2; ++k) a.by_eps[k] = make_array(p.eps_gradient[k], strip);
  a.weight = T(p.weight);
  const DifferenceUnits units = difference_units(p.op, p.dim, p.axis_scale);
  for (int k = 0; k < p.dim; ++k) a.axis_scale[k] = T(units.axis_scale[k]);
  const double eps_scale = M::kUnit * units.eps_scale;
  a.eps_scale = T(eps_scale);
  a.eps_in_range = true;
  for (int k = 0; k < 2; ++k) {
    a.source[k] = make_source<T>(p.image[k], p.size[4], false);
    a.gradient[k] = make_array(p.gradient[k], strip);
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
void launch_sweep(const Plan& plan, const Problem& problem, double gradient_scale,
                  const double* factor, double* partials, Stream stream) {
  constexpr int most_threads = M::kMostThreads;
  const char* name = "launch of the NGF sweep failed";
  auto arguments = make_sweep_arguments<M>(problem, plan.tiling);
  arguments.gradient_scale = gradient_scale;
  arguments.factor = factor;
  arguments.partials = partials;
  // Asks for as much as there is, because it asks once per device.
  allow_shared<M, most_threads>(limits_of_device().shared_bytes, name);
  launch<M, most_threads>(arguments, plan.tiling.blocks, plan.tiling.threads(), plan.shared_bytes,
                          stream, name);
}

// Decides on the kernel and the tiling. The kernel is kept as a function that knows how to launch
// it: its options are not looked at again.
template <typename T, int Dim>
Plan plan_sweep(const Problem& problem) {
  return with_sweep<T, Dim>(problem, [&](auto chosen) {
    using M = typename decltype(chosen)::type;
    const Limits limits = limits_of_sweep<M>(problem);
    Plan plan{};
    plan.tiling = make_tiling(problem, limits);
    if (plan.tiling.threads() == 0)
      throw std::runtime_error("nec_ext: this GPU has too little shared memory for the NGF sweep");
    plan.shared_bytes = cells(plan.tiling, limits) * limits.cell.bytes(plan.tiling.slots);
    plan.launch = launch_sweep<M>;
    return plan;
  });
}

}  // namespace nec::cuda
