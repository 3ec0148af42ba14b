// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors

#include "sweep.inl"

namespace nec::cuda {

template int64_t sweep_blocks<double, 2>(const Problem&);
template int64_t launch_sweep<double, 2>(const Problem&, double, const double*, double*, Stream);

}  // namespace nec::cuda
