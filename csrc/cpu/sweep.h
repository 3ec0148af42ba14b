// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The CPU path: loss and gradient of a whole problem in one sweep over its planes.
#pragma once

#include "sums.h"

namespace nec::cpu {

// Writes the gradients and the loss map that the problem asks for and returns the sums of mask *
// value over the window.
PlaneSums sweep(const Problem& problem, const Threads& threads);

}  // namespace nec::cpu
