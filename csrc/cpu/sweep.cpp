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

// The partial sums of every plane, added up.
PlaneSums sum_planes(const Tiling& tiling, const std::vector<double>& partials) {
  PlaneSums sums(size_t(tiling.planes), 0.0);
  const int64_t tiles = tiling.tiles[0] * tiling.tiles[1];
  for (int64_t i = 0; i < tiling.partials(); ++i)
    sums[size_t(i / tiles % tiling.planes)] += partials[size_t(i)];
  return sums;
}

Scratch& thread_scratch() {
  thread_local Scratch scratch;
  return scratch;
}

template <typename T>
PlaneSums run_sweep(const Problem& problem, const Threads& threads) {
  const Tiling tiling = make_tiling(problem, threads.count);
  std::vector<double> partials(size_t(tiling.partials()), 0.0);
  for_each_piece(tiling, threads, [&](const Piece& piece) {
    TileSweep<T>(problem, piece, thread_scratch())
        .run(&partials[size_t(piece.first_partial)], piece.partial_step);
  });
  return sum_planes(tiling, partials);
}

// The sum over the axes that the mask broadcasts is a multiplication.
template <typename T>
PlaneSums run_mask_sum(Problem problem, const Threads& threads) {
  double repeats = 1;
  for (int axis : {0, 1}) {
    if (problem.mask.stride[axis] == 0) {
      repeats *= double(problem.size[axis]);
      problem.size[axis] = 1;
    }
  }
  problem.gradient[0].data = problem.gradient[1].data = nullptr;
  problem.upstream.data = nullptr;
  const Tiling tiling = make_tiling(problem, threads.count);
  std::vector<double> partials(size_t(tiling.partials()), 0.0);
  for_each_piece(tiling, threads, [&](const Piece& piece) {
    TileSweep<T>(problem, piece, thread_scratch())
        .sum_mask(&partials[size_t(piece.first_partial)], piece.partial_step);
  });
  PlaneSums sums = sum_planes(tiling, partials);
  for (double& sum : sums) sum *= repeats;
  return sums;
}

}  // namespace

double total(const PlaneSums& sums) {
  double sum = 0;
  for (const double plane : sums) sum += plane;
  return sum;
}

PlaneSums mask_sums(const Problem& problem, const Threads& threads) {
  return problem.wide ? run_mask_sum<double>(problem, threads)
                      : run_mask_sum<float>(problem, threads);
}

PlaneSums sweep(const Problem& problem, const Threads& threads) {
  return problem.wide ? run_sweep<double>(problem, threads) : run_sweep<float>(problem, threads);
}

}  // namespace nec::cpu
