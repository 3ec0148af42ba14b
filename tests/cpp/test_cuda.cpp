// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// csrc/cuda on the CPU (cuda_on_cpu/cuda_runtime.h): what every device has to pass, tiles, and the
// kernels around a sweep.

#include "cuda/launch.cuh"
#include "sweep_cases.h"

namespace {

using namespace sweep_case;

struct Scalars {
  double loss = 0, factor = 0;
};

// The loss as csrc/ops asks for it.
Scalars loss(const Problem& p, bool mean, bool normalize) {
  const nec::cuda::Plan plan = nec::cuda::make_plan(p);
  std::vector<double> workspace(size_t(plan.workspace_size));
  double voxels = 1;
  for (const int64_t size : p.size) voxels *= double(size);
  Scalars out;
  const nec::cuda::Total total{p.weight, mean, voxels, normalize, true, &out.loss, &out.factor};
  nec::cuda::launch_loss(p, plan, total, workspace.data(), nullptr);
  return out;
}

double sum_of(const Problem& p, bool of_mask) {
  const nec::cuda::Plan plan = nec::cuda::make_plan(p);
  std::vector<double> workspace(size_t(plan.workspace_size));
  double sum = std::nan("");
  nec::cuda::launch_sum(p, plan, of_mask, workspace.data(), &sum, nullptr);
  return sum;
}

void test_loss() {
  for (int flags = 0; flags < 16; ++flags) {
    const bool masked = flags & 1, mean = flags & 2, normalize = flags & 4, wide = flags & 8;
    Case c;
    c.dtype[0] = c.dtype[1] = wide ? DType::float64 : DType::float32;
    if (masked) c.mask_size = {2, 1, 5, 6, 7};
    Run run(c);
    dense::Outputs want = run.expected();
    const Real voxels = masked ? want.mask_sum : Real(dense::count(c.size));
    const Real factor = run.problem.weight / (mean ? voxels : 1);
    const Scalars got = loss(run.problem, mean, normalize);
    const Real digits = wide ? 1e-13L : 1e-6L;
    const std::string what = "flags " + std::to_string(flags);
    CHECK_NEAR(got.factor, factor, digits * factor, "factor, " + what);
    const Real expected = factor * (voxels - want.sum / 2);
    CHECK_NEAR(got.loss, expected, digits * expected, "loss, " + what);
    for (int m : {0, 1}) {
      for (Real& value : want.gradient[m])
        value *= (normalize ? factor : 1) / run.problem.gradient_scale;
      compare(run.gradient[m], want.gradient[m], c, what);
    }
  }
  Case c;
  c.mask_size = c.size;
  Run run(c);
  run.mask.fill(Array(size_t(dense::count(c.size)), 0));
  const Scalars got = loss(run.problem, true, true);
  CHECK(got.loss == 0 && got.factor == 0, "a mean over nothing is 0");
  for (const Real value : run.gradient[0].values()) CHECK(value == 0, "a mean over nothing");
}

void test_scale() {
  const Size size{2, 3, 4, 5, 6};
  const int64_t shape[] = {2, 3, 4, 5, 6};
  Array values(size_t(dense::count(size)));
  for (size_t i = 0; i < values.size(); ++i) values[i] = Real(i % 17) - 8;
  float upstream = 2;
  for (const DType dtype : kTypes)
    for (const Layout layout : kLayouts)
      for (double factor : {1.0, 0.5, 2.0}) {
        Strided gradient(dtype, layout, size, size);
        gradient.fill(values);
        nec::View first{&upstream, DType::float32, {}}, second{&factor, DType::float64, {}};
        nec::cuda::launch_scale(gradient.view(), shape, first, factor == 1 ? nec::View() : second,
                                nullptr);
        const Array scaled = gradient.values();
        for (size_t i = 0; i < values.size(); ++i)
          CHECK(scaled[i] == values[i] * 2 * factor, "scaled at " + std::to_string(i));
        CHECK(gradient.untouched_outside({{0, 0, 0}, {4, 5, 6}}), "scaled outside");
      }
}

// Totals begin early on the GPUs and the drivers that can.
void test_starts() {
  const Case c;
  Run run(c);
  for (const int major : {8, 9}) {
    for (const int driver : {12020, 12030}) {
      for (const int ptx : {80, kPtx}) {
        fake_device.major = major;
        fake_device.driver = driver;
        fake_device.ptx = ptx;
        early_starts = 0;
        sum_of(run.problem, false);
        CHECK(early_starts == int(major == 9 && driver == 12030 && ptx >= 90), "an early total");
      }
    }
  }
  fake_device = FakeDevice();
}

void test_too_little_shared_memory() {
  const Case c;
  Run run(c);
  fake_device.shared_bytes = 1024;
  std::string refused;
  try {
    sum_of(run.problem, false);
  } catch (const std::runtime_error& error) {
    refused = error.what();
  }
  CHECK(refused.find("too little shared memory") != std::string::npos, refused);
  fake_device = FakeDevice();
}

// The same bits whatever a block before has left in shared memory. NaNs alone would not do: a voxel
// that reads one is computed again.
void test_leftovers() {
  const Size sizes[] = {{3, 1, 12, 1, 64},  {3, 1, 12, 1, 200}, {3, 1, 12, 1, 509},
                        {3, 1, 12, 1, 512}, {2, 1, 5, 9, 64},   {2, 1, 4, 9, 61}};
  for (const Size& size : sizes) {
    for (const Operator op : kAllOperators) {
      for (const int kilobytes : {14, 18, 24}) {
        Case c = case_of(size[3] == 1 ? 2 : 3, size);
        c.op = op;
        fake_device.shared_bytes = (c.dim == 2 ? kilobytes : 24) * 1024;
        Run nan(c), zero(c);
        nan.sweep();
        fake_device.leftovers = 0;
        zero.sweep();
        CHECK(nan.gradient[0].bytes() == zero.gradient[0].bytes(), "leftovers: " + c.name());
        fake_device = FakeDevice();
      }
    }
  }
}

// Rows of whole strips, for the kernels that take nothing else, and images of many tiles.
void test_tiles() {
  const Size sizes[] = {{1, 1, 5, 9, 8},  {1, 2, 3, 23, 40}, {1, 1, 4, 11, 100},
                        {2, 1, 40, 1, 8}, {1, 1, 9, 1, 200}, {1, 1, 3, 30, 37}};
  for (const Size& size : sizes)
    for (const Operator op : kAllOperators)
      for (const int gradients : {0, 1, 2})
        for (const bool isotropic : {true, false}) {
          Case c = case_of(size[3] == 1 ? 2 : 3, size);
          c.op = op;
          c.gradients = gradients;
          c.isotropic = isotropic;
          check_case(c);
        }
}

// Every way by which images and mask get into shared memory, and gradients out of it.
void test_copies() {
  Run random{Case()};
  const DType maps[] = {DType::uint8, DType::float32, DType::float16, DType::float64};
  int number = 0;
  for (const Size& size : {Size{2, 1, 5, 9, 40}, Size{1, 2, 4, 7, 16}, Size{1, 2, 9, 1, 24}})
    for (const DType input : kTypes)
      for (const DType target : kTypes)
        for (const Layout layout : kLayouts)
          for (const DType map : maps) {
            Case c = case_of(size[3] == 1 ? 2 : 3, size);
            c.op = kAllOperators[size_t(++number) % kAllOperators.size()];
            c.dtype[0] = input;
            c.dtype[1] = target;
            c.layout[number % 2] = layout;
            c.map_dtype = map;
            if (number % 5) c.mask_size = number % 5 == 1 ? Size{1, 1, 1, 1, size[4]} : size;
            if (number % 7 == 0) c.window = random_box(random, size);
            check_case(c);
          }
}

}  // namespace

int main() {
  backend = {[](const Problem& p) { return sum_of(p, false); },
             [](const Problem& p) { return sum_of(p, true); }};
  // Few threads per block make many tiles.
  for (const int bytes : {64 * 1024, 24 * 1024}) {
    fake_device.shared_bytes = bytes;
    test_tiles();
    test_copies();
    test_loss();
  }
  test_leftovers();
  test_starts();
  test_too_little_shared_memory();
  test_scale();
  test_everywhere();
  return check::finish("test_cuda");
}
