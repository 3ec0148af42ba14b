// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
#pragma once

#include <cstddef>

namespace nec::cpu {

// Tells the system that all of this memory is about to be written. On Linux a large fresh
// allocation is mapped page by page at the first touch of each, which can take longer than
// computing what is written; huge pages need 512 times fewer such steps. Elsewhere, and for small
// blocks, nothing happens.
void expect_full_write(void* data, size_t bytes);

}  // namespace nec::cpu
