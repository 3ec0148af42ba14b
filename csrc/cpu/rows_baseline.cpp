// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The row loops for the instruction set that every processor of the platform has (SSE2 on x86-64,
// NEON on ARM), and the wide rows, which are too rare to be worth more than one copy.

#include "capability.h"
#include "row_kernels.inl"

namespace nec::cpu {

RowKernels<float> row_kernels_baseline(float) { return make_row_kernels<float>(); }
RowKernels<double> row_kernels_baseline(double) { return make_row_kernels<double>(); }

namespace {
template <typename T, typename A>
struct WideTable {
  WideField<T> field;
  WideTable() {
    fill_fields<T, A, 2>(field[0]);
    fill_fields<T, A, 3>(field[1]);
  }
};
}  // namespace

template <>
const WideField<float>& wide_field<float>() {
  static const WideTable<float, double> table;
  return table.field;
}

template <>
const WideField<double>& wide_field<double>() {
  static const WideTable<double, long double> table;
  return table.field;
}

}  // namespace nec::cpu
