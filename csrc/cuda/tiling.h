// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// How a problem is cut into blocks of threads.
//
// A thread owns a strip: 16 bytes of a row. A block of `rows` times `strips` threads sweeps a job
// along z, which is a tile of the plane and a chunk of planes of one image. Around the voxels whose
// gradient it writes, the tile has one more strip at each end of a row, and `halo` more rows at
// each side. In 2D, where a plane is a single row, every row of a block is a job of its own.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "../problem.h"

namespace nec::cuda {

template <typename A, typename B>
inline auto ceil_div(A a, B b) {
  return (a + b - 1) / b;
}

// What one kernel on one GPU allows.
struct Limits {
  int multiprocessors;
  int most_threads;  // of a block; as many run on a multiprocessor at a time, in whatever blocks
  int strip_voxels;  // per thread
  bool gradients;    // are asked for: the field is needed one voxel around the tile
};

struct Tiling {
  int strips, rows;  // of a block, a thread each
  int halo;          // rows at each side that are only read, or only computed
  int first_x;       // of the first tile, a multiple of a strip
  int tile_rows;     // that a tile writes
  int tiles_x, tiles_y;
  int chunk, chunks;  // planes
  int64_t jobs, blocks;
  int pitch;  // threads from one plane of shared memory to the next

  int threads() const { return ceil_div(strips * rows, 32) * 32; }
};

// A step of a march takes as long for fewer threads: it waits for memory.
constexpr int64_t kLeastThreads = 256;
// Planes that a job only reads, and the start of a block, in steps.
constexpr int64_t kStepsBesides = 3;
// Waves of blocks over the multiprocessors that are tried: the more, the better they fill the last
// one, and the more often the planes between two chunks are computed twice.
constexpr int64_t kMostWaves = 4;

// The time of all blocks, in threads times steps of a multiprocessor.
inline int64_t cost(const Tiling& t, const Limits& limits) {
  const int64_t resident = std::max(1, limits.most_threads / t.threads());
  const int64_t on_each = ceil_div(t.blocks, limits.multiprocessors);
  const int64_t side_by_side = std::min(resident, on_each);
  const int64_t step = std::max(side_by_side * t.threads(), kLeastThreads);
  return ceil_div(on_each, resident) * step * (t.chunk + 2 * t.halo + kStepsBesides);
}

// Completes a tiling whose tiles are given with the best length of a chunk.
inline int64_t choose_chunks(const Problem& p, const Limits& limits, Tiling& t) {
  const int64_t planes = p.window.hi[0] - p.window.lo[0];
  const int64_t columns = p.size[0] * p.size[1] * t.tiles_x * t.tiles_y;
  const int64_t jobs_per_block = p.dim == 2 ? t.rows : 1;
  const int64_t resident = std::max(1, limits.most_threads / t.threads());
  Tiling best{};
  int64_t least = std::numeric_limits<int64_t>::max();
  for (int64_t waves = 1; waves <= kMostWaves; ++waves) {
    const int64_t room = waves * resident * limits.multiprocessors * jobs_per_block;
    t.chunk = ceil_div(planes, std::clamp<int64_t>(room / columns, 1, planes));
    t.chunks = ceil_div(planes, t.chunk);
    t.jobs = columns * t.chunks;
    t.blocks = ceil_div(t.jobs, jobs_per_block);
    const int64_t own = cost(t, limits);
    if (own < least) {
      least = own;
      best = t;
    }
  }
  t = best;
  return least;
}

// The cheapest of a few tilings. It depends on the sizes and on the GPU, and on nothing else.
inline Tiling make_tiling(const Problem& p, const Limits& limits) {
  const auto length = [&](int axis) { return p.window.hi[axis] - p.window.lo[axis]; };
  Tiling t{};
  t.halo = limits.gradients ? 2 : 1;
  t.first_x = int(p.window.lo[2] / limits.strip_voxels) * limits.strip_voxels;
  const int64_t row_strips = ceil_div(p.window.hi[2] - t.first_x, limits.strip_voxels);
  const int halo_rows = p.dim == 3 ? 2 * t.halo : 0;
  const int64_t widest = limits.most_threads / (halo_rows + 1) - 2;
  Tiling best{};
  int64_t least = std::numeric_limits<int64_t>::max();
  const int64_t fewest = ceil_div(row_strips, widest);
  for (int64_t wanted = fewest; wanted < fewest + 3; ++wanted) {
    const int64_t tile_strips = ceil_div(row_strips, wanted);
    t.strips = int(tile_strips) + 2;
    t.tiles_x = ceil_div(row_strips, tile_strips);
    const int64_t most_rows = limits.most_threads / t.strips - halo_rows;
    for (int64_t part = 1; part <= 3 && part <= most_rows; ++part) {
      // In 3D the most rows, or a few less; in 2D a half or a third of them: small
      // images leave multiprocessors without work otherwise.
      if (p.dim == 3) {
        t.tiles_y = ceil_div(length(1), most_rows) + part - 1;
        t.tile_rows = ceil_div(length(1), t.tiles_y);
        t.tiles_y = ceil_div(length(1), t.tile_rows);
      } else {
        t.tiles_y = t.tile_rows = 1;
      }
      t.rows = int(p.dim == 3 ? t.tile_rows + halo_rows : most_rows / part);
      const int64_t own = choose_chunks(p, limits, t);
      if (own < least) {
        least = own;
        best = t;
      }
    }
  }
  best.pitch = best.threads() + 1;
  return best;
}

}  // namespace nec::cuda
