// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors

#include "plan.inl"

template nec::cuda::Plan nec::cuda::plan_sweep<double, 2>(const nec::Problem&);
template nec::cuda::Plan nec::cuda::plan_sweep<double, 3>(const nec::Problem&);
