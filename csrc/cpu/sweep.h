// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The CPU path: loss and gradient of a whole problem in one sweep over its planes.
#pragma once

#include <functional>

#include "../problem.h"

namespace nec::cpu {

// Calls body(worker) for every worker in [0, count), on as many threads. csrc/ops passes torch's
// pool.
using RunWorkers = std::function<void(int count, const std::function<void(int)>& body)>;

struct Threads {
  int count;
  RunWorkers run;
};

// Sum of mask over the window, counting a broadcast mask once per voxel of the images. A NaN or a
// negative weight makes it NaN.
double mask_sum(const Problem& problem, const Threads& threads);

// Writes the gradients and the loss map that the problem asks for and returns the sum of mask * t^2
// over the window. The order of the summation does not depend on the threads.
double sweep(const Problem& problem, const Threads& threads);

}  // namespace nec::cpu
