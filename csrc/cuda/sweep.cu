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

// Enough for any GPU to be busy, few enough for one block to add up.
constexpr int64_t kMaskBlocks = 1024;
constexpr int64_t kScaleBlocks = 1024;
// At the start of the workspace: the sum of the mask and the factor.
constexpr int64_t kScalars = 2;

// An index along an axis is 32 bits wide in the kernels, and may lie some tiles beyond the end.
void check_size(const int64_t (&sizes)[kAxes]) {
  for (const int64_t size : sizes) {
    if (size > std::numeric_limits<int>::max() - (1 << 20))
      throw std::invalid_argument("nec_ext: an axis of a CUDA image must be shorter than 2^31");
  }
}

// A kernel whose blocks have kSumThreads threads.
template <class Body>
void launch_small(const typename Body::Arguments& arguments, int64_t blocks, Stream stream,
                  const char* name, Start start = Start::in_order) {
  launch<Body, kSumThreads>(arguments, blocks, kSumThreads, kSumThreads * int64_t(sizeof(double)),
                            stream, name, start);
}

// Adds up what the kernel before it has left. One block is enough for a few thousand numbers, and
// adds them in one order.
template <class Body>
void launch_finish(const typename Body::Arguments& arguments, Stream stream, const char* name) {
  launch_small<Body>(arguments, 1, stream, name, Start::early);
}

// A thread takes several strips where there are more than `most` blocks would hold.
int64_t enough_blocks(const JoinedArray& joined, int64_t most) {
  return std::min(ceil_div(joined.count, int64_t(kSumThreads)), most);
}

struct Partials {
  int64_t count;
  double repeats;  // of a mask over axes that it broadcasts; else 1
};

// Sums the mask over the window into partials [count]. It is an array of its own here: the order of
// its axes in memory need not be that of the images. Axes that it broadcasts are left out, and
// multiplied in at the end.
template <typename T>
Partials launch_mask(const Problem& p, double* partials, Stream stream) {
  View mask = p.mask;
  int64_t size[kAxes] = {p.size[0], p.size[1]};
  int64_t before = 0;  // elements up to the window
  for (int k = 0; k < 3; ++k) {
    size[k + 2] = p.window.hi[k] - p.window.lo[k];
    before += p.window.lo[k] * mask.stride[k + 2];
  }
  mask.data = static_cast<char*>(mask.data) + before * element_bytes(mask.dtype);
  const JoinedAxes axes = join_axes(mask, size);
  const JoinedArray joined = join_array<T>(mask, axes);
  const Partials result{enough_blocks(joined, kMaskBlocks), axes.repeats};
  launch_small<MaskSum<T>>({joined, partials}, result.count, stream,
                           "launch of the mask's sum failed");
  return result;
}

// In the type of the arithmetic, as the sweep reads it.
Partials launch_mask_of(const Problem& p, double* partials, Stream stream) {
  return p.wide ? launch_mask<double>(p, partials, stream)
                : launch_mask<float>(p, partials, stream);
}

}  // namespace

// The four instances of plan_sweep are compiled in files of their own.
Plan make_plan(const Problem& p) {
  check_size(p.size);
  Plan plan = p.wide ? (p.dim == 2 ? plan_sweep<double, 2>(p) : plan_sweep<double, 3>(p))
                     : (p.dim == 2 ? plan_sweep<float, 2>(p) : plan_sweep<float, 3>(p));
  plan.workspace_size = kScalars + std::max(kMaskBlocks, plan.tiling.blocks);
  return plan;
}

void launch_loss(const Problem& problem, const Plan& plan, const Total& total, double* workspace,
                 Stream stream) {
  const Factor factor{total.weight, total.mean};
  double* scalars = nullptr;
  double* partials = workspace + kScalars;
  if (problem.mask) {
    scalars = workspace;
    const Partials mask = launch_mask_of(problem, partials, stream);
    launch_finish<FinishMask>({partials, mask.count, mask.repeats, factor, scalars}, stream,
                              "launch of the mask's total failed");
  }
  // The factor of a mask's mean is known to the GPU alone.
  const bool known = total.normalize && !scalars;
  plan.launch(plan, problem, known ? factor.value(total.voxels) : 1.0,
              total.normalize && scalars ? scalars + 1 : nullptr, partials, stream);
  launch_finish<FinishLoss>(
      {partials, plan.tiling.blocks, scalars, total.voxels, factor, LossOfValue::of(problem.form),
       total.wide_scalars, total.loss, total.factor},
      stream, "launch of the loss's total failed");
}

void launch_sum(const Problem& problem, const Plan& plan, bool of_mask, double* workspace,
                double* sum, Stream stream) {
  Partials partials{plan.tiling.blocks, 1};
  if (of_mask) {
    partials = launch_mask_of(problem, workspace, stream);
  } else {
    plan.launch(plan, problem, problem.gradient_scale, nullptr, workspace, stream);
  }
  launch_finish<FinishSum>({workspace, partials.count, partials.repeats, sum}, stream,
                           "launch of the total failed");
}

void launch_maps(const Problem& problem, const Plan& plan, Stream stream) {
  plan.launch(plan, problem, problem.gradient_scale, nullptr, nullptr, stream);
}

void launch_scale(const View& gradient, const int64_t (&size)[kAxes], const View& upstream,
                  const View& factor, Stream stream) {
  check_size(size);
  const char* name = "launch of the gradient's scaling failed";
  const auto run = [&](auto number) {
    using T = decltype(number);
    const JoinedArray joined = join_array<T>(gradient, join_axes(gradient, size));
    launch_small<Scale<T>>({joined, make_array(upstream, 1), make_array(factor, 1)},
                           enough_blocks(joined, kScaleBlocks), stream, name);
  };
  if (gradient.dtype == DType::float64) {
    run(double());
  } else {
    run(float());
  }
}

const char* toolkit_version() {
  return NEC_TEXT(__CUDACC_VER_MAJOR__) "." NEC_TEXT(__CUDACC_VER_MINOR__);
}

}  // namespace nec::cuda
