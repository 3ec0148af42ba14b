// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors

#include "plan.inl"

namespace nec::cuda {

template Plan plan_sweep<double, 3>(const Problem&);

}  // namespace nec::cuda
