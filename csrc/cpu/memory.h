// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
#pragma once

#include <cstddef>

namespace nec::cpu {

// Copies to memory that will not be read again soon, past the caches where the processor can: a
// line that is written whole need not be read first. stream_fence() makes such writes visible to
// other threads.
void stream_copy(const void* source, size_t bytes, void* destination);
void stream_fence();

}  // namespace nec::cpu
