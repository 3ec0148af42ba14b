// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
#pragma once

#include "../problem.h"
#include "threads.h"

namespace nec::cpu {

// array *= factor in place, rounded once from the type of the arithmetic. Where the factor is 1, as
// that of every plain backward is, nothing is read or written.
void scale(const View& array, const int64_t (&size)[kAxes], double factor, const Threads& threads);

}  // namespace nec::cpu
