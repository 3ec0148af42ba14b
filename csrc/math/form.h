// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The forms of the loss: what becomes of the alignment t of a voxel, or of the cross product of the
// two fields.
//
//   squared    1 - t^2 / 2
//   signed     1 - t
//   absolute   1 - t, with |p| in place of p = <d, e>
//   cross      |n x m|^2 / 2 = (|n|^2 |m|^2 - t^2) / 2
//
// A sweep computes and adds up a value v per voxel, to which the loss is linear: base - scale * v.
#pragma once

#include "common.h"

namespace nec {

// Which code computes a voxel. The two that most calls use have their own; the others of an eps
// mode share theirs, and factors of 0 and 1 tell them apart: no branch.
enum class Formula : int { additive = 0, quadrature = 1, any_additive = 2, any_root = 3 };
constexpr int kFormulas = 4;

// `by_eps`: derivatives by eps are wanted too.
NEC_INLINE Formula formula_of(EpsMode mode, Form form, bool by_eps) {
  const bool additive = mode == EpsMode::additive;
  if (form != Form::squared || mode == EpsMode::augmented || by_eps)
    return additive ? Formula::any_additive : Formula::any_root;
  return additive ? Formula::additive : Formula::quadrature;
}

constexpr NEC_INLINE bool is_additive(Formula formula) {
  return formula == Formula::additive || formula == Formula::any_additive;
}

constexpr NEC_INLINE bool has_any_form(Formula formula) {
  return formula == Formula::any_additive || formula == Formula::any_root;
}

NEC_INLINE bool is_linear(Form form) { return form == Form::signed_ || form == Form::absolute; }

// Factors by which formulas of any form tell the forms apart.
template <typename T>
struct FormFactors {
  T square, linear;  // v = t (square t + linear), and dl/dt = -(square t + linear)
  T absolute;        // |p| in place of p
  T augmented;       // eps is a component of the gradient
  T cross;           // v = -|n x m|^2

  static NEC_INLINE FormFactors of(EpsMode mode, Form form) {
    return {T(form == Form::squared), T(is_linear(form)), T(form == Form::absolute),
            T(mode == EpsMode::augmented), T(form == Form::cross)};
  }
};

// The loss of a voxel from its value, and of many from the sum of their values.
struct LossOfValue {
  double base, scale;

  static NEC_INLINE LossOfValue of(Form form) {
    return {form == Form::cross ? 0.0 : 1.0, is_linear(form) ? 1.0 : 0.5};
  }
  template <typename T>
  NEC_INLINE T voxel(T weight, T value) const {
    return weight * (T(base) - T(scale) * value);
  }
  // `voxels`: their number, or the sum of the mask. `factor`: d loss / d (sum over voxels).
  NEC_INLINE double sum(double factor, double voxels, double values) const {
    return factor * (base * voxels - scale * values);
  }
};

}  // namespace nec
