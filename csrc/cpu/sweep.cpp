// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors

#include "sweep.h"

#include <atomic>
#include <vector>

#include "tile_sweep.h"

namespace nec::cpu {
namespace {

// Threads take pieces as they become free; the sums do not care which thread took which.
template <typename Body>
void for_each_piece(const Tiling& tiling, const Threads& threads, const Body& body) {
  std::atomic<int64_t> next{0};
  const int64_t pieces = tiling.pieces();
  const auto worker = [&](int) {
    for (int64_t i; (i = next.fetch_add(1)) < pieces;) body(piece_at(tiling, i));
  };
  if (tiling.workers == 1) {
    worker(0);
  } else {
    threads.run(tiling.workers, worker);
  }
}

double sum_in_order(const std::vector<double>& partials) {
  double sum = 0;
  for (const double partial : partials) sum += partial;
  return sum;
}

Scratch& thread_scratch() {
  thread_local Scratch scratch;
  return scratch;
}

template <typename T>
double run_sweep(const Problem& problem, const Threads& threads) {
  const Tiling tiling = make_tiling(problem, threads.count);
  std::vector<double> partials(size_t(tiling.partials()), 0.0);
  for_each_piece(tiling, threads, [&](const Piece& piece) {
    TileSweep<T>(problem, piece, thread_scratch())
        .run(&partials[size_t(piece.first_partial)], piece.partial_step, tiling.slab);
  });
  return sum_in_order(partials);
}

// The sum over the axes that the mask broadcasts is a multiplication.
template <typename T>
double run_mask_sum(Problem problem, const Threads& threads) {
  double repeats = 1;
  for (int axis : {0, 1}) {
    if (problem.mask.stride[axis] == 0) {
      repeats *= double(problem.size[axis]);
      problem.size[axis] = 1;
    }
  }
  for (int k = 0; k < 3; ++k) {
    problem.window.lo[k] = std::max(problem.window.lo[k], problem.terms.lo[k]);
    problem.window.hi[k] = std::min(problem.window.hi[k], problem.terms.hi[k]);
    if (problem.window.lo[k] >= problem.window.hi[k]) return 0;
  }
  problem.gradient[0].data = problem.gradient[1].data = nullptr;
  problem.upstream.data = nullptr;
  const Tiling tiling = make_tiling(problem, threads.count);
  std::vector<double> partials(size_t(tiling.partials()), 0.0);
  for_each_piece(tiling, threads, [&](const Piece& piece) {
    TileSweep<T>(problem, piece, thread_scratch())
        .sum_mask(&partials[size_t(piece.first_partial)], piece.partial_step, tiling.slab);
  });
  return repeats * sum_in_order(partials);
}

}  // namespace

double mask_sum(const Problem& problem, const Threads& threads) {
  return problem.wide ? run_mask_sum<double>(problem, threads)
                      : run_mask_sum<float>(problem, threads);
}

double sweep(const Problem& problem, const Threads& threads) {
  return problem.wide ? run_sweep<double>(problem, threads) : run_sweep<float>(problem, threads);
}

}  // namespace nec::cpu
