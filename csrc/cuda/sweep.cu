// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The launches around a sweep. With a mask: its partial sums, and from them the factor of the mean;
// the sweep, with partial sums of its own; one block that adds them up. All partial sums are in the
// workspace, which the kernels use one after the other:
//
//   workspace   [ sum of the mask | factor | partial sums of the mask, then of the sweep ... ]
//                 <--- kScalars ---------->

#include "sweep.h"

#include "launch.cuh"
#include "scale.cuh"
#include "sums.cuh"

#define NEC_TEXT_(x) #x
#define NEC_TEXT(x) NEC_TEXT_(x)

namespace nec::cuda {
namespace {

// The most blocks of the mask's sum and of a scaling: enough for any GPU to be busy, few enough for
// one block to add up.
constexpr int64_t kMostBlocks = 1024;
// At the start of the workspace: the sum of the mask and the factor.
constexpr int64_t kScalars = 2;

// An index along an axis is 32 bits wide in the kernels, and may lie some tiles beyond the end.
void check_size(const int64_t (&sizes)[kAxes]) {
  for (const int64_t size : sizes) {
    if (size > std::numeric_limits<int>::max() - (1 << 20))
      throw std::invalid_argument("nec_ext: an axis of a CUDA image must be shorter than 2^31");
  }
}

// Adds up what the kernel before it has left. One block is enough for a few thousand numbers, and
// adds them in one order.
template <class Body>
void launch_finish(const Body& body, Stream stream, const char* name) {
  launch(body, 1, kSumThreads, kSumBytes, stream, name, true);
}

// A thread takes several strips where there are more than so many blocks would hold.
int64_t enough_blocks(const JoinedArray& joined) {
  return std::min(ceil_div(joined.count, int64_t(kSumThreads)), kMostBlocks);
}

// Calls f with a number of the type of the arithmetic.
template <typename F>
auto with_arithmetic(bool wide, const F& f) {
  return wide ? f(double()) : f(float());
}

// Sums the mask over the window. It is an array of its own here: the order of its axes in memory
// need not be that of the images. Axes that it broadcasts are left out, and multiplied in at the
// end.
Partials launch_mask(const Problem& p, double* sums, Stream stream) {
  View mask = p.mask;
  int64_t size[kAxes] = {p.size[0], p.size[1]};
  int64_t before = 0;  // elements up to the window
  for (int k = 0; k < 3; ++k) {
    size[k + 2] = p.window.hi[k] - p.window.lo[k];
    before += p.window.lo[k] * mask.stride[k + 2];
  }
  mask.data = static_cast<char*>(mask.data) + before * element_bytes(mask.dtype);
  const JoinedAxes axes = join_axes(mask, size);
  return with_arithmetic(p.wide, [&](auto number) {
    using T = decltype(number);
    const JoinedArray joined = join_array<T>(mask, axes);
    const int64_t blocks = enough_blocks(joined);
    launch(MaskSum<T>{joined, sums}, blocks, kSumThreads, kSumBytes, stream,
           "launch of the mask's sum failed");
    return Partials{sums, blocks, axes.repeats};
  });
}

}  // namespace

// The four instances of plan_sweep are compiled in files of their own.
Plan make_plan(const Problem& p) {
  check_size(p.size);
  Plan plan = p.wide ? (p.dim == 2 ? plan_sweep<double, 2>(p) : plan_sweep<double, 3>(p))
                     : (p.dim == 2 ? plan_sweep<float, 2>(p) : plan_sweep<float, 3>(p));
  plan.workspace_size = kScalars + std::max(kMostBlocks, plan.tiling.blocks);
  return plan;
}

void launch_loss(const Problem& problem, const Plan& plan, const Total& total, double* workspace,
                 Stream stream) {
  double* const scalars = problem.mask ? workspace : nullptr;
  double* const sums = workspace + kScalars;
  if (scalars) {
    const Partials mask = launch_mask(problem, sums, stream);
    launch_finish(FinishSum{mask, total, scalars, scalars + 1}, stream,
                  "launch of the mask's total failed");
  }
  // The factor of a mask's mean is known to the GPU alone.
  Problem scaled = problem;
  scaled.gradient_scale =
      total.normalize && !scalars ? loss_factor(total.weight, total.mean, total.voxels) : 1.0;
  plan.launch(plan, scaled, total.normalize && scalars ? scalars + 1 : nullptr, sums, stream);
  const Partials partials{sums, plan.tiling.blocks, 1};
  launch_finish(FinishLoss{partials, scalars, total, LossOfValue::of(problem.form)}, stream,
                "launch of the loss's total failed");
}

void launch_sum(const Problem& problem, const Plan& plan, bool of_mask, double* workspace,
                double* sum, Stream stream) {
  Partials partials{workspace, plan.tiling.blocks, 1};
  if (of_mask) {
    partials = launch_mask(problem, workspace, stream);
  } else {
    plan.launch(plan, problem, nullptr, workspace, stream);
  }
  launch_finish(FinishSum{partials, {}, sum, nullptr}, stream, "launch of the total failed");
}

void launch_maps(const Problem& problem, const Plan& plan, Stream stream) {
  plan.launch(plan, problem, nullptr, nullptr, stream);
}

void launch_scale(const View& gradient, const int64_t (&size)[kAxes], const View& upstream,
                  const View& factor, Stream stream) {
  check_size(size);
  with_arithmetic(gradient.dtype == DType::float64, [&](auto number) {
    using T = decltype(number);
    const JoinedArray joined = join_array<T>(gradient, join_axes(gradient, size));
    launch(Scale<T>{joined, make_array(upstream, 1), make_array(factor, 1)}, enough_blocks(joined),
           kSumThreads, kSumBytes, stream, "launch of the gradient's scaling failed");
  });
}

const char* toolkit_version() {
  return NEC_TEXT(__CUDACC_VER_MAJOR__) "." NEC_TEXT(__CUDACC_VER_MINOR__);
}

}  // namespace nec::cuda
