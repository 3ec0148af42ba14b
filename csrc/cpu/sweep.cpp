// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors

#include "sweep.h"

#include "march.h"

namespace nec::cpu {
namespace {

template <typename T>
PlaneSums sweep_as(const Problem& problem, const Threads& threads) {
  return sum_pieces(
      make_tiling(problem, threads.count), threads,
      [&](const Piece& piece, double* partials) { March<T>(problem, piece).run(partials); });
}

}  // namespace

PlaneSums sweep(const Problem& problem, const Threads& threads) {
  return problem.wide ? sweep_as<double>(problem, threads) : sweep_as<float>(problem, threads);
}

}  // namespace nec::cpu
