// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// csrc/ops/axes.h: which axis makes the rows.

#include "check.h"
#include "ops/axes.h"

namespace {

using Sizes = std::vector<int64_t>;

// The order of an image whose axes lie in memory as `order` says, slowest first, as one digit each.
int order_of(const Sizes& size, const std::vector<int>& memory, int row_axes, int64_t step = 1) {
  Sizes stride(size.size());
  for (size_t k = memory.size(); k-- > 0;) {
    stride[size_t(memory[k])] = step;
    step *= size[size_t(memory[k])];
  }
  int digits = 0;
  for (const int axis : nec::sweep_order(size, stride, row_axes)) digits = 10 * digits + axis;
  return digits;
}

struct Expected {
  Sizes size;
  std::vector<int> memory;
  int row_axes, order;
  int64_t step = 1;
};

}  // namespace

int main() {
  const std::vector<int> forth = {0, 1, 2}, back = {2, 1, 0}, rows = {0, 1}, columns = {1, 0};
  const Expected cases[] = {
      {{90, 80, 32}, forth, 3, 12},   // a long row stays
      {{90, 80, 31}, forth, 3, 21},   // a short one gives way to the axis before it
      {{90, 80, 31}, forth, 2, 21},   //
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
      {{2, 70}, columns, 2, 1},       //
      {{70, 2}, columns, 2, 10},      //
      {{70, 2}, rows, 2, 1, 600},     // a stride of 1200
  };
  for (const Expected& c : cases) {
    const int order = order_of(c.size, c.memory, c.row_axes, c.step);
    CHECK(order == c.order, std::to_string(order) + " in place of " + std::to_string(c.order));
  }
  return check::finish("test_axes");
}
