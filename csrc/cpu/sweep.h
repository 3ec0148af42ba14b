// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The CPU path: loss and gradient of a whole problem in one sweep over its planes.
#pragma once

#include <functional>
#include <vector>

#include "../problem.h"

namespace nec::cpu {

// Calls body(worker) for every worker in [0, count), on as many threads. csrc/ops passes torch's
// pool.
using RunWorkers = std::function<void(int count, const std::function<void(int)>& body)>;

struct Threads {
  int count;
  RunWorkers run;
};

// One sum for each plane (z) of the window. Their order of summation does not depend on the
// threads, nor on where the window begins and ends along z.
using PlaneSums = std::vector<double>;

// The planes added in order.
double total(const PlaneSums& sums);

// Sums of mask over the window, counting a broadcast mask once per voxel of the images. A
// NaN or a negative weight makes them NaN.
PlaneSums mask_sums(const Problem& problem, const Threads& threads);

// Writes the gradients and the loss map that the problem asks for and returns the sums of mask *
// t^2 over the window.
PlaneSums sweep(const Problem& problem, const Threads& threads);

}  // namespace nec::cpu
