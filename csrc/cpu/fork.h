// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
#pragma once

namespace nec::cpu {

// Whether this process was forked after the extension had been loaded. Only the thread that forks
// goes on in a child, but a pool of threads that the parent has used does not know that, and waits
// for the others for ever.
bool is_forked_child();

}  // namespace nec::cpu
