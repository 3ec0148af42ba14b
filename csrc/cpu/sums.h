// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// Sums over voxels. Every piece has a partial sum per plane, a unit that depends on the problem
// alone, and they are added in a fixed order: the bits do not depend on the threads.
#pragma once

#include <atomic>
#include <vector>

#include "threads.h"
#include "tiling.h"

namespace nec::cpu {

// One sum for each plane (z) of the window. Their order of summation does not depend on the
// threads, nor on where the window begins and ends along z.
using PlaneSums = std::vector<double>;

// The planes added in order.
double total(const PlaneSums& sums);

// Sums of mask over the window, counting a broadcast mask once per voxel of the images. A NaN or a
// negative weight makes them NaN.
PlaneSums mask_sums(const Problem& problem, const Threads& threads);

// Adds up the partial sums of every plane.
PlaneSums sum_planes(const Tiling& tiling, const std::vector<double>& partials);

// Calls body(piece, partials) for every piece, and adds up what the bodies have added to the
// partial sums: partials[k * piece.partial_stride] belongs to plane k of the piece. Threads take
// pieces as they become free; the sums do not care which thread took which.
template <typename Body>
PlaneSums sum_pieces(const Tiling& tiling, const Threads& threads, const Body& body) {
  std::vector<double> partials(size_t(tiling.partials()), 0.0);
  std::atomic<int64_t> next{0};
  const int64_t pieces = tiling.pieces();
  const auto worker = [&](int) {
    for (int64_t i; (i = next.fetch_add(1)) < pieces;) {
      const Piece piece = piece_at(tiling, i);
      body(piece, &partials[size_t(piece.first_partial)]);
    }
  };
  if (tiling.workers == 1) {
    worker(0);
  } else {
    threads.run(tiling.workers, worker);
  }
  return sum_planes(tiling, partials);
}

}  // namespace nec::cpu
