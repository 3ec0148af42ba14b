// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// What a sweep is told, and which part of it is a thread's.
#pragma once

#include "strips.cuh"
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
  plain,    // float32, rows of whole strips, whole images, nothing per voxel, one spacing
  spaced,   // the same with another spacing along each axis
  general,  // everything
};

NEC_DEVICE int smaller(int a, int b) { return a < b ? a : b; }

// `Margin`: voxels around a tile where the field is needed, 0 or 1.
template <int Dim, int Margin>
struct Place {
  int own;  // the thread's strip of a plane in shared memory
  int64_t sample;
  int channel, x, y;      // of the first voxel of the strip
  int z_begin, z_end;     // planes whose gradient the job writes
  bool present;           // has a strip
  bool computes, writes;  // the field; the gradient
  bool first, last;       // holds the first or the last voxel of a row

  template <typename T>
  NEC_DEVICE Place(const SweepArguments<T>& a, int strip_voxels) {
    const Tiling& t = a.tiling;
    const int thread = int(threadIdx.x), row = thread / t.strips, strip = thread % t.strips;
    int64_t job = Dim == 3 ? int64_t(blockIdx.x) : int64_t(blockIdx.x) * t.rows + row;
    own = row < t.rows ? thread : 0;
    present = row < t.rows && job < t.jobs;
    const auto next_digit = [&job](int base) {
      const int digit = int(job % base);
      job /= base;
      return digit;
    };
    const int tile_x = next_digit(t.tiles_x), tile_y = next_digit(t.tiles_y);
    const int chunk = next_digit(t.chunks);
    channel = next_digit(a.channels);
    sample = job;
    z_begin = a.window.lo[0] + chunk * t.chunk;
    z_end = smaller(z_begin + t.chunk, a.window.hi[0]);
    x = t.first_x + (tile_x * (t.strips - 2) + strip - 1) * strip_voxels;
    y = 0;
    writes = present && strip > 0 && strip < t.strips - 1 && x < a.window.hi[2];
    computes = Margin == 0 ? writes : present && x >= 0 && x < a.width;
    first = writes && x == 0;
    last = writes && x + strip_voxels >= a.width;
    if constexpr (Dim == 3) {
      const int tile = a.window.lo[1] + tile_y * t.tile_rows;
      const int tile_end = smaller(tile + t.tile_rows, a.window.hi[1]);
      y = tile + row - t.halo;
      writes &= y >= tile && y < tile_end;
      computes &= y >= tile - Margin && y < tile_end + Margin && y >= 0 && y < a.height;
    }
  }

  NEC_DEVICE char* row(const Array& array, int z) const { return array.row(sample, channel, z, y); }
};

}  // namespace nec::cuda
