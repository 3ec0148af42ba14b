// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors

#include "sums.h"

#include <algorithm>

#include "images.h"
#include "maps.h"

namespace nec::cpu {
namespace {

template <typename T>
void sum_mask(const Problem& problem, const Piece& piece, double* partials) {
  const PieceRows<T> rows(problem, piece, 0);
  T* memory;
  rows.take_scratch({{&memory, Maps<T>::kRows}});
  Maps<T> maps(rows, memory);
  const Box& box = piece.box;
  for (int64_t z = box.lo[0]; z < box.hi[0]; ++z) {
    for (int64_t y = box.lo[1]; y < box.hi[1]; ++y) {
      maps.load_weight(z, y);
      partials[(z - box.lo[0]) * piece.partial_stride] +=
          rows.kernels.sum(maps.weight(), rows.span);
    }
  }
}

// The sum over the axes that the mask broadcasts is a multiplication.
template <typename T>
PlaneSums mask_sums_as(Problem problem, const Threads& threads) {
  double repeats = 1;
  for (int axis : {0, 1}) {
    if (problem.mask.stride[axis] == 0) {
      repeats *= double(problem.size[axis]);
      problem.size[axis] = 1;
    }
  }
  problem.upstream.data = nullptr;
  PlaneSums sums = sum_pieces(
      make_tiling(problem, threads.count), threads,
      [&](const Piece& piece, double* partials) { sum_mask<T>(problem, piece, partials); });
  for (double& sum : sums) sum *= repeats;
  return sums;
}

}  // namespace

double total(const PlaneSums& sums) {
  double sum = 0;
  for (const double plane : sums) sum += plane;
  return sum;
}

PlaneSums sum_planes(const Tiling& tiling, const std::vector<double>& partials) {
  PlaneSums sums(size_t(tiling.planes), 0.0);
  const int64_t tiles = tiling.tiles[0] * tiling.tiles[1];
  for (int64_t i = 0; i < tiling.partials(); ++i)
    sums[size_t(i / tiles % tiling.planes)] += partials[size_t(i)];
  return sums;
}

PlaneSums mask_sums(const Problem& problem, const Threads& threads) {
  return problem.wide ? mask_sums_as<double>(problem, threads)
                      : mask_sums_as<float>(problem, threads);
}

}  // namespace nec::cpu
