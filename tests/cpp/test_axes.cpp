// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// csrc/ops/axes.h: which axis makes the rows.

#include "check.h"
#include "ops/axes.h"

namespace {

using Sizes = std::vector<int64_t>;

struct Expected {
  Sizes size, memory;   // the axes, slowest first
  int row_axes, order;  // one digit for each axis
  int64_t step = 1;
};

}  // namespace

int main() {
  const Sizes forth = {0, 1, 2}, back = {2, 1, 0}, rows = {0, 1}, columns = {1, 0};
  const Expected cases[] = {
      {{90, 80, 32}, forth, 3, 12},   // a long row stays
      {{90, 80, 31}, forth, 3, 21},   // a short one gives way to the axis before it
      {{90, 80, 31}, forth, 1, 12},   // but not on a GPU
      {{31, 80, 90}, back, 3, 201},   // whatever the layout
      {{90, 20, 10}, forth, 3, 120},  // nor is the middle long: the slowest
      {{90, 20, 10}, forth, 2, 21},   // which has to remain where planes are summed
      {{90, 64, 10}, forth, 3, 21},   // the first that is long, not the longest
      {{19, 18, 10}, forth, 3, 12},   // not for less than twice as many
      {{90, 23, 22}, forth, 3, 120},  // of a stride of 506
      {{90, 24, 22}, forth, 3, 12},   // 528 are too many
      {{2, 70}, rows, 2, 1},          //
      {{70, 2}, rows, 2, 10},         //
      {{70, 2}, rows, 1, 1},          //
      {{70, 2}, columns, 2, 10},      //
      {{70, 2}, rows, 2, 1, 600},     // a stride of 1200
  };
  for (const Expected& c : cases) {
    Sizes stride(c.size.size());
    int64_t step = c.step;
    for (size_t k = c.memory.size(); k-- > 0;) {
      stride[size_t(c.memory[k])] = step;
      step *= c.size[size_t(c.memory[k])];
    }
    int order = 0;
    for (const int axis : nec::sweep_order(c.size, stride, c.row_axes)) order = 10 * order + axis;
    CHECK(order == c.order, std::to_string(order) + " in place of " + std::to_string(c.order));
  }
  return check::finish("test_axes");
}
