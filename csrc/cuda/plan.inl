// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// From a Problem to the kernel of its options, its tiling and what that kernel is told, for one
// arithmetic type and dimension. Included by the files that compile them, which are several so that
// a build can use several processors.

#include "launch.cuh"
#include "march.cuh"

namespace nec::cuda {

// -------------------------------------------------------------------------------------------------
// The kernel of a problem
// -------------------------------------------------------------------------------------------------

// Names a march as a value, which a generic lambda can take.
template <class M>
struct Kernel {
  using type = M;
};

// The variant that has no more to look at than the problem asks for. `plain` is what a training
// step of float32 images gets.
template <typename T>
Variant variant_of(const Problem& p) {
  if (has_any_form(p.formula())) return Variant::formed;
  if (!p.has_full_window() || p.eps_map[0] || p.eps_map[1] || p.mask || p.upstream || p.loss_map)
    return Variant::general;
  bool plain = p.is_isotropic() && p.size[4] % Strip<T>::size == 0;
  for (const View& view : {p.image[0], p.image[1], p.gradient[0], p.gradient[1]}) {
    plain &=
        !view || (view.dtype == DType::float32 && make_array(view, Strip<T>::size).whole_strips);
  }
  return plain ? Variant::plain : Variant::strided;
}

// The functions below turn the options of a problem into types one after the other, and end with
// f(Kernel<March<...>>()). So every combination is compiled, and no kernel asks for an option but
// the formula. float64 has the last variant alone: half as much to compile.
template <typename T, int Dim, class S, Gradients Wanted, typename F>
auto with_variant(const Problem& p, const F& f) {
  if constexpr (sizeof(T) == 4) {
    const Variant variant = variant_of<T>(p);
    if (variant == Variant::plain) return f(Kernel<March<T, Dim, S, Wanted, Variant::plain>>());
    if (variant == Variant::strided) return f(Kernel<March<T, Dim, S, Wanted, Variant::strided>>());
    if (variant == Variant::general) return f(Kernel<March<T, Dim, S, Wanted, Variant::general>>());
  }
  return f(Kernel<March<T, Dim, S, Wanted, Variant::formed>>());
}

template <typename T, int Dim, class S, typename F>
auto with_gradients(const Problem& p, const F& f) {
  switch (p.wanted_gradients()) {
    case Gradients::none: return with_variant<T, Dim, S, Gradients::none>(p, f);
    case Gradients::input: return with_variant<T, Dim, S, Gradients::input>(p, f);
    case Gradients::both: break;
  }
  return with_variant<T, Dim, S, Gradients::both>(p, f);
}

template <typename T, int Dim, typename F>
auto with_sweep(const Problem& p, const F& f) {
  return with_stencil(
      p.op, [&](auto stencil) { return with_gradients<T, Dim, decltype(stencil)>(p, f); });
}

// The tiling for as many threads as the kernel has registers and shared memory for.
template <class M>
Tiling make_sweep_tiling(const Problem& p, int multiprocessors, int64_t shared_bytes_of_a_block) {
  const int64_t most = M::most_threads(shared_bytes_of_a_block);
  if (most < kWarp)
    throw std::runtime_error("nec_ext: this GPU has too little shared memory for the NGF sweep");
  return make_tiling(
      p, {multiprocessors, int(most), M::kStrip, p.wanted_gradients() != Gradients::none});
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

// Everything that the threads are told but the partial sums, the factor and the gradient scale,
// which the caller knows.
template <typename T>
SweepArguments<T> make_sweep_arguments(const Problem& p, const Tiling& tiling) {
  constexpr int strip = Strip<T>::size;
  SweepArguments<T> a{};
  a.tiling = tiling;
  a.channels = int(p.size[1]);
  a.depth = int(p.size[2]);
  a.height = int(p.size[3]);
  a.width = int(p.size[4]);
  a.window = int_box(p.window);
  a.formula = p.formula();
  a.form = FormFactors<T>::of(p.mode, p.form);
  a.loss = LossOfValue::of(p.form);
  a.mask = make_array(p.mask, strip);
  a.upstream = make_array(p.upstream, strip);
  a.loss_map = make_array(p.loss_map, strip);
  for (int k = 0; k < 2; ++k) a.by_eps[k] = make_array(p.eps_gradient[k], strip);
  a.weight = T(p.weight);
  const DifferenceUnits units = difference_units(p.op, p.dim, p.axis_scale);
  for (int k = 0; k < p.dim; ++k) a.axis_scale[k] = T(units.axis_scale[k]);
  a.eps_scale = T(units.eps_scale);
  a.eps_in_range = true;
  for (int k = 0; k < 2; ++k) {
    a.image[k] = make_array(p.image[k], strip);
    a.gradient[k] = make_array(p.gradient[k], strip);
    a.eps_map[k] = make_array(p.eps_map[k], strip);
    a.eps[k] = T(p.eps[k] * units.eps_scale);
    if (!p.eps_map[k]) a.eps_in_range &= eps_in_range(a.eps[k]);
  }
  return a;
}

// -------------------------------------------------------------------------------------------------
// The plan
// -------------------------------------------------------------------------------------------------

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

// Plan::launch of a kernel.
template <class M>
void launch_sweep(const Plan& plan, const Problem& problem, double gradient_scale,
                  const double* factor, double* partials, Stream stream) {
  constexpr int most_threads = M::kMostThreads;
  const char* name = "launch of the NGF sweep failed";
  auto arguments = make_sweep_arguments<typename M::T>(problem, plan.tiling);
  arguments.gradient_scale = gradient_scale;
  arguments.factor = factor;
  arguments.partials = partials;
  // Asks for the memory of the largest block, because it asks once per device.
  const int64_t most = M::most_threads(limits_of_device().shared_bytes);
  allow_shared<M, most_threads>(M::shared_bytes(most), name);
  launch<M, most_threads>(arguments, plan.tiling.blocks, plan.tiling.threads(), plan.shared_bytes,
                          stream, name);
}

// Decides on the kernel and the tiling. The kernel is kept as a function that knows how to launch
// it: its options are not looked at again.
template <typename T, int Dim>
Plan plan_sweep(const Problem& problem) {
  return with_sweep<T, Dim>(problem, [&](auto chosen) {
    using M = typename decltype(chosen)::type;
    const DeviceLimits limits = limits_of_device();
    Plan plan{};
    plan.tiling = make_sweep_tiling<M>(problem, limits.multiprocessors, limits.shared_bytes);
    plan.shared_bytes = M::shared_bytes(plan.tiling.threads());
    plan.launch = launch_sweep<M>;
    return plan;
  });
}

}  // namespace nec::cuda
