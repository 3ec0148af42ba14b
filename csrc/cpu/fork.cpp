// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors

#include "fork.h"

#include <atomic>

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace nec::cpu {
namespace {

std::atomic<bool> forked{false};

#if !defined(_WIN32)
[[maybe_unused]] const int registered =
    pthread_atfork(nullptr, nullptr, [] { forked.store(true, std::memory_order_relaxed); });
#endif

}  // namespace

bool is_forked_child() { return forked.load(std::memory_order_relaxed); }

}  // namespace nec::cpu
