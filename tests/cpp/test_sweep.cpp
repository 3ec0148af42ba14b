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

double sweep(const Run& run, int workers) {
  return nec::cpu::total(nec::cpu::sweep(run.problem, threads(workers)));
}

double mask_sum(const Problem& p, int workers) {
  return nec::cpu::total(nec::cpu::mask_sums(p, threads(workers)));
}

// Larger than any sensible tile along each axis, and not a multiple of one.
void test_tiles() {
  for (const Size& size :
       {Size{1, 1, 3, 1, 2500}, Size{1, 1, 4, 67, 1500}, Size{1, 1, 3, 700, 21}}) {
    for (const Operator op : kAllOperators) {
      Case c = case_of(size[3] == 1 ? 2 : 3, size);
      c.op = op;
      c.mask_size = size;
      check_case(c);
    }
  }
}

// Rows of several images side by side, the last group of fewer, and whole rows of too few for that.
void test_joined_images() {
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

// The same bits for any number of threads. `change` prepares the buffers.
template <typename Change>
void check_workers(const Case& c, const Change& change) {
  Run one(c);
  change(one);
  const double sum = sweep(one, 1);
  const double mask = one.problem.mask ? mask_sum(one.problem, 1) : 0;
  for (const int workers : {2, 3, 7}) {
    Run many(c);
    change(many);
    CHECK(sweep(many, workers) == sum, std::to_string(workers) + " workers: " + c.name());
    for (int m : {0, 1}) {
      CHECK(many.gradient[m].bytes() == one.gradient[m].bytes(),
            "gradient, " + std::to_string(workers) + " workers: " + c.name());
    }
    if (many.problem.mask) {
      CHECK(mask_sum(many.problem, workers) == mask, "mask: " + c.name());
    }
  }
}

void test_workers() {
  for (const Size& size : {Size{1, 1, 90, 40, 50}, Size{3, 2, 12, 30, 40}, Size{1, 1, 600, 1, 300},
                           Size{43, 1, 12, 10, 11}}) {
    for (const bool masked : {false, true}) {
      Case c = case_of(size[3] == 1 ? 2 : 3, size);
      c.op = masked ? Operator::sobel : Operator::central;
      if (masked) c.mask_size = size;
      check_workers(c, [](Run&) {});
      check_case(c);
    }
  }
  // Voxels that are computed in the wider type, because of a tiny eps or a huge value, must not
  // depend on where a thread began either.
  Case c = case_of(3, {1, 1, 90, 40, 50});
  c.eps_size[0] = c.size;
  const size_t somewhere = (70 * 40 + 20) * 50 + 25;
  check_workers(c, [&](Run& run) {
    Array eps = run.eps[0].values();
    eps[somewhere - 40 * 40 * 50] = 1e-12L;
    run.eps[0].fill(eps);
  });
  check_workers(c, [&](Run& run) {
    Array image = run.image[0].values();
    image[somewhere] = 1e20L;
    run.image[0].fill(image);
  });
}

}  // namespace

int main() {
  try {
    std::printf("instruction set: %s\n", nec::cpu::chosen_capability());
  } catch (const std::exception& error) {
    std::printf("skipped: %s\n", error.what());
    return 77;
  }
  backend = {[](const Problem& p) { return nec::cpu::total(nec::cpu::sweep(p, threads(1))); },
             [](const Problem& p) { return mask_sum(p, 1); }};
  test_everywhere();
  test_tiles();
  test_joined_images();
  test_workers();
  return check::finish("test_sweep");
}
