// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The row loops for the instruction set that every processor of the platform has (SSE2 on x86-64,
// NEON on ARM), and the wide rows, which are too rare to be worth more than one copy.

#include "capability.h"
#define NEC_LANE_BYTES 16
#include "row_kernels.inl"

namespace nec::cpu {

RowKernels<float> row_kernels_baseline(float) { return make_row_kernels<float>(); }
RowKernels<double> row_kernels_baseline(double) { return make_row_kernels<double>(); }

namespace {
template <typename T, typename A>
struct WideTable {
  WideCotangents<T> cotangent;
  WideTable() {
    fill_cotangents<T, A, 2>(cotangent[0], AllOperators());
    fill_cotangents<T, A, 3>(cotangent[1], AllOperators());
  }
};
}  // namespace

template <>
const WideCotangents<float>& wide_cotangents<float>() {
  static const WideTable<float, double> table;
  return table.cotangent;
}

template <>
const WideCotangents<double>& wide_cotangents<double>() {
  static const WideTable<double, long double> table;
  return table.cotangent;
}

}  // namespace nec::cpu
