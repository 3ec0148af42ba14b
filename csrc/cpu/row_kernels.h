// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The inner loops of the CPU sweep: everything that touches each voxel, one row (x) at a time.
//
// The loops are compiled once per instruction set into a table of functions; march.cpp, which
// is compiled once, walks planes and rows and calls them. A row of 160 voxels takes about 100 ns,
// so the call through a pointer costs nothing that can be measured.
#pragma once

#include "../problem.h"

namespace nec::cpu {

// Rows in the sweep's scratch memory start on a cache line, have kPad elements before x = 0 for the
// border, and a length rounded up to kLanes: every loop runs over whole vectors, and what lies
// beyond the row has weight 0.
constexpr int kPad = 16;
constexpr int kLanes = 16;

constexpr int kGradients = 3;

// One row of cotangents and the images around it. Every pointer points at x = 0 of a row in scratch
// memory.
template <typename T>
struct CotangentRow {
  const T* input[3][3];  // [dz + 1][dy + 1], rows (x)
  const T* target[3][3];
  T* columns[2][3];    // [image], rows (x) for what a stencil beside the axes keeps of a column
  const T* eps_input;  // (x), in units of the last axis' differences
  const T* eps_target;
  const T* weight;   // (x), mask times upstream
  T axis_scale[3];   // of a stencil's difference, relative to that of the last axis
  T gradient_scale;  // of the whole gradient
  FormFactors<T> form;
  T* value;               // (x), of which the loss is made (math/form.h)
  double* sums;           // [kLanes], to which weight times value is added: lane by lane
  T* cotangent_input[3];  // [axis], (x): dl/dd times weight, gradient_scale and axis_scale
  T* cotangent_target[3];
  T* by_eps[2];    // (x), dl/deps of both images times weight and eps_scale; formulas of any form
  T eps_scale;     // of a derivative by eps
  int64_t length;  // a multiple of kLanes
};

// One row of the adjoint, at plane z of a march along z (math/stencil.h).
template <typename T>
struct AdjointRow {
  const T* cotangent[3][3];  // [axis][dy + 1], rows (x) of plane z
  T* columns[3];             // rows (x), as of a CotangentRow
  T sign_y[2];               // of component y in the rows before and after
  T own_taps[2];             // factors of in_plane and along_z in plane z itself
  T* carried;          // (x); before: what plane z - 1 adds to plane z; after: what z adds to z + 1
  T* running;          // (x); before: plane z - 1 without what z adds; after: the same of plane z
  T* gradient;         // (x), plane z - 1, complete
  int64_t begin, end;  // range of x
};

template <typename T>
struct RowKernels {
  // dst[i] = src[i * stride]. `src` is of the indexed DType.
  using Load = void (*)(const void* src, int64_t stride, int64_t n, T* dst);
  using Store = void (*)(const T* src, int64_t n, void* dst, int64_t stride);
  // False where a voxel left the range in which T computes it well: the row has to be done again in
  // a wider type.
  using Cotangent = bool (*)(const CotangentRow<T>&);
  using Adjoint = void (*)(const AdjointRow<T>&);
  using Sum = double (*)(const T* values, int64_t n);
  // Adds weight times value to sums [kLanes], lane by lane.
  using AddProducts = void (*)(const T* values, const T* weight, int64_t n, double* sums);

  // Rows of eps and of a mask (math/voxel.h). False where an eps is outside of Range<T>.
  using ScaleEps = bool (*)(T* eps, int64_t n, T scale);
  using CheckMask = void (*)(T* mask, int64_t n);

  Load load[kDTypes];
  Store store[kDTypes];  // uint8 has none
  ScaleEps scale_eps;
  CheckMask check_mask;
  Cotangent cotangent[2][kOperators][kFormulas][kGradients][2];  // [dim - 2] ... [isotropic]
  Adjoint adjoint[2][kOperators];
  Sum sum;
  AddProducts add_products;
};

// The same cotangent rows, computed in double for float and in long double for double.
template <typename T>
using WideCotangents = typename RowKernels<T>::Cotangent[2][kOperators][kFormulas][kGradients][2];

// The tables of the instruction set in use (capability.h).
template <typename T>
const RowKernels<T>& row_kernels();
template <typename T>
const WideCotangents<T>& wide_cotangents();

}  // namespace nec::cpu
