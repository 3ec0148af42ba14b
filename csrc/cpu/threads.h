// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
#pragma once

#include <functional>

namespace nec::cpu {

// Calls body(worker) for every worker in [0, count), on as many threads. csrc/ops passes torch's
// pool.
using RunWorkers = std::function<void(int count, const std::function<void(int)>& body)>;

struct Threads {
  int count;
  RunWorkers run;
};

}  // namespace nec::cpu
