// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// csrc/cpu/sweep.h without torch: what every device has to pass, tiles, and any number of threads.
//
// The environment variable NEC_EXT_CPU_CAPABILITY chooses the instruction set; one that cannot run
// here skips the test.

#include <thread>

#include "cpu/capability.h"
#include "cpu/sweep.h"
#include "sweep_cases.h"

namespace {

using namespace sweep_case;

nec::cpu::Threads threads(int count) {
  return {count, [](int workers, const std::function<void(int)>& body) {
            std::vector<std::thread> pool;
            for (int worker = 0; worker < workers; ++worker) pool.emplace_back(body, worker);
            for (std::thread& thread : pool) thread.join();
          }};
}

double sweep(const Problem& p, int workers) {
  return nec::cpu::total(nec::cpu::sweep(p, threads(workers)));
}

double mask_sum(const Problem& p, int workers) {
  return nec::cpu::total(nec::cpu::mask_sums(p, threads(workers)));
}

// Larger than any sensible tile along each axis, and not a multiple of one. With a gradient a tile
// has a margin; the sum has the same bits.
void test_tiles() {
  for (const Size& size :
       {Size{1, 1, 3, 1, 2500}, Size{1, 1, 4, 67, 1500}, Size{1, 1, 3, 700, 21}}) {
    for (const Operator op : kAllOperators) {
      Case c = case_of(size[3] == 1 ? 2 : 3, size);
      c.op = op;
      c.mask_size = size;
      check_case(c);
      const Real sum = Run(c).sweep();
      for (c.gradients = 0; c.gradients < 2; ++c.gradients)
        CHECK(Run(c).sweep() == sum, "sum with other gradients: " + c.name());
    }
  }
}

// Rows of several pairs side by side, the last group of fewer, and whole rows of too few for that.
void test_joined_pairs() {
  Run random{Case()};
  for (const Size& size : {Size{19, 1, 3, 4, 7}, Size{2, 21, 3, 3, 9}, Size{37, 2, 5, 1, 4},
                           Size{3, 1, 2, 3, 46}, Size{70, 1, 2, 2, 1}}) {
    for (const Operator op : kAllOperators) {
      for (const Layout layout : {Layout::contiguous, Layout::channels_last}) {
        Case c = case_of(size[3] == 1 ? 2 : 3, size);
        c.op = op;
        c.layout[0] = layout;
        c.mask_size = c.upstream_size = size;
        c.eps_size[0] = {size[0], 1, 1, 1, 1};
        c.eps_size[1] = {1, size[1], size[2], size[3], size[4]};
        check_case(c);
        c.window = random_box(random, size);
        check_case(c);
      }
    }
  }
}

// The same bits for any number of threads, and that of a voxel which is computed in the wider type
// must not depend on where a thread began.
void test_workers() {
  for (const Size& size : {Size{1, 1, 90, 40, 50}, Size{3, 2, 12, 30, 40}, Size{1, 1, 600, 1, 300},
                           Size{43, 1, 12, 10, 11}}) {
    for (const Operator op : kAllOperators) {
      Case c = case_of(size[3] == 1 ? 2 : 3, size);
      c.op = op;
      c.mask_size = size;
      Run one(c);
      Array image = one.image[0].values();
      image[image.size() / 3] = 1e20L;
      one.image[0].fill(image);
      const double sum = sweep(one.problem, 1), mask = mask_sum(one.problem, 1);
      const dense::Outputs want = one.expected();
      CHECK_NEAR(sum, want.sum, 1e-6L * want.sum, "one extreme voxel: " + c.name());
      compare(one.gradient[1], want.gradient[1], c, "extreme");
      for (const int workers : {2, 3, 7}) {
        Run many(c);
        many.image[0].fill(image);
        const std::string what = std::to_string(workers) + " workers: " + c.name();
        CHECK(sweep(many.problem, workers) == sum, what);
        CHECK(mask_sum(many.problem, workers) == mask, "mask, " + what);
        for (int m : {0, 1})
          CHECK(many.gradient[m].bytes() == one.gradient[m].bytes(), "gradient, " + what);
      }
    }
  }
}

}  // namespace

int main() {
  try {
    std::printf("instruction set: %s\n", nec::cpu::chosen_capability());
  } catch (const std::exception& error) {
    std::printf("skipped: %s\n", error.what());
    return 77;
  }
  backend = {[](const Problem& p) { return sweep(p, 1); },
             [](const Problem& p) { return mask_sum(p, 1); }};
  test_everywhere();
  test_tiles();
  test_joined_pairs();
  test_workers();
  return check::finish("test_sweep");
}
