// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// What a sweep is told, and which part of it is a thread's.
#pragma once

#include "shared_cells.cuh"
#include "tiling.h"

namespace nec::cuda {

// A Box of an array whose axes are shorter than 2^31.
struct IntBox {
  int lo[3], hi[3];
};

// What every thread of a sweep is told. The numbers are in the type of the arithmetic.
template <typename T>
struct SweepArguments {
  Tiling tiling;
  int channels;
  int depth, height, width;
  IntBox terms, window;  // problem.h
  EpsMode mode;
  Array image[2], eps_map[2], mask, upstream, gradient[2], loss_map;
  T eps[2];           // in differences along the last axis
  T eps_scale;        // makes that of the value of an eps map
  bool eps_in_range;  // Range<T>
  T axis_scale[3];    // of a difference, relative to that of the last axis
  T weight;           // of the loss map
  double gradient_scale;
  const double* factor;  // in device memory: multiplies the gradient too; null: 1
  double* partials;      // [blocks], sums of weight * t^2 over the window; null: not asked for
};

// How much of the above a kernel has to look at.
enum class Layout {
  plain,    // whole images and nothing per voxel; float32, rows of whole strips, one spacing
  loose,    // whole images and nothing per voxel
  general,  // everything
};

NEC_DEVICE int smaller(int a, int b) { return a < b ? a : b; }

// Steps of a march: first, first + 1, ..., count of them.
struct Steps {
  int first, count;

  NEC_DEVICE bool contain(int step) const { return unsigned(step - first) < unsigned(count); }
};

// `Margin`: voxels around a tile where the field is needed, 0 or 1.
template <int Dim, int Margin>
struct Place {
  int64_t sample;
  int channel, x, y;  // of the first voxel of the strip
  int z;              // plane of the first step
  Steps computes;     // the field
  Steps writes;       // the gradient, or the sum
  Neighbours to;

  template <typename T>
  NEC_DEVICE Place(const SweepArguments<T>& a, int strip_voxels) {
    const Tiling& t = a.tiling;
    const int thread = int(threadIdx.x), row = thread / t.strips, strip = thread % t.strips;
    int64_t job = Dim == 3 ? int64_t(blockIdx.x) : int64_t(blockIdx.x) * t.rows + row;
    // A thread too many reads what some other one does.
    bool present = row < t.rows && job < t.jobs;
    if (job >= t.jobs) job = 0;
    const auto next_digit = [&job](int base) {
      const int digit = int(job % base);
      job /= base;
      return digit;
    };
    const int tile_x = next_digit(t.tiles_x), tile_y = next_digit(t.tiles_y);
    const int chunk = next_digit(t.chunks);
    channel = next_digit(a.channels);
    sample = job;
    x = t.first_x + (tile_x * (t.strips - 2) + strip) * strip_voxels;
    present &= x < a.width;
    // Who is at an end of a tile, and not of all tiles, is there for its neighbour.
    bool in_tile = (strip > 0 || tile_x == 0) && (strip < t.strips - 1 || tile_x == t.tiles_x - 1);
    in_tile &= x + strip_voxels > a.window.lo[2] && x < a.window.hi[2];
    bool around = Margin > 0 || in_tile;
    to.left = strip > 0 ? -1 : 0;
    to.right = row < t.rows && strip + 1 < t.strips && x + strip_voxels < a.width ? 1 : 0;
    y = to.up = to.down = 0;
    if constexpr (Dim == 3) {
      const int from_end = t.rows - 1 - row;
      y = t.first_y + tile_y * (t.rows - 2 * t.halo) + row;
      present &= y < a.height;
      const auto is_within = [&](int halo) {
        return (row >= halo || tile_y == 0) && (from_end >= halo || tile_y == t.tiles_y - 1);
      };
      in_tile &= is_within(t.halo) && y >= a.window.lo[1] && y < a.window.hi[1];
      around &= is_within(t.halo - Margin);
      to.up = row > 0 ? -t.strips : 0;
      to.down = row + 1 < t.rows && y + 1 < a.height ? t.strips : 0;
    }
    in_tile &= present;
    around &= present;
    const int begin = a.window.lo[0] + chunk * t.chunk;
    const int end = smaller(begin + t.chunk, a.window.hi[0]);
    z = begin - Margin;
    const int first_step = z < 0 ? 1 : 0;
    writes = {Margin, in_tile ? end - begin : 0};
    computes = {first_step, around ? smaller(end + Margin, a.depth) - z - first_step : 0};
  }

  NEC_DEVICE char* row(const Array& array, int plane) const {
    return array.row(sample, channel, plane, y);
  }
};

}  // namespace nec::cuda
