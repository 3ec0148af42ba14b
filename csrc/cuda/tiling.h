// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// How a problem is cut into blocks of threads.
//
// A thread owns a strip, 16 bytes of a row, in one or two rows. A block of `rows` times `strips`
// threads sweeps a piece along z, which is a tile of the plane and a chunk of planes of one image.
// Each of two tiles computes `margin` rows, or one strip, for the other one's sake. Where the
// image ends nothing of that is needed. In 2D, where a plane is a single row, every row of a block
// is a piece of its own.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "../problem.h"
#include "device.cuh"

namespace nec::cuda {

// The size of a thread's cell in shared memory (cells.cuh).
struct CellSizes {
  int cotangent_strips;  // 16 bytes each: of cotangents,
  int slot_strips;       // and of a plane in the ring
  int edge_bytes;

  // From one cell to the next, in strips: odd, so that the threads of a warp meet in no bank.
  NEC_INLINE int pitch(int slots) const { return (cotangent_strips + slots * slot_strips) | 1; }
  NEC_INLINE int64_t bytes(int slots) const { return 16 * int64_t(pitch(slots)) + edge_bytes; }
};

// The limits of a GPU.
struct Device {
  int multiprocessors;
  int shared_bytes;           // of a block
  int shared_multiprocessor;  // of all blocks that a multiprocessor runs together
  int shared_reserved;        // of these, for each block besides its own
};

// The limits of one kernel on a GPU.
struct Limits : Device {
  int most_threads;        // of a block; as many run on a multiprocessor, in whatever blocks
  int strip_voxels;        // per thread
  int rows_per_thread;     // 2D: 1
  int halo_rows_of_cells;  // for rows of the images that no thread stands for; 2D: 0
  int margin;              // voxels around a tile where cotangents are needed, 0 or 1
  CellSizes cell;
};

// The same for every block: a kernel computes its place from it (place.cuh), and edges of the image
// leave some threads without work.
struct Tiling {
  int strips, rows;  // of a block, a thread each
  int margin;
  int first_x, first_y;  // of the first tile; x is a multiple of a strip
  int tiles_x, tiles_y;
  int chunk, chunks;  // planes
  int slots;          // of the ring
  int64_t pieces;     // of all images
  int64_t blocks;     // of a launch; as many as pieces in 3D

  NEC_INLINE int threads() const { return strips * rows; }
};

// A ring has a plane that is looked at, the one before it and the one after it.
constexpr int kFewestSlots = 3;
// With one slot more, a plane has a whole step to arrive: worth some threads less.
constexpr int kGoodSlots = 4;
// A step of a march takes as long for fewer threads: it waits for memory.
constexpr int64_t kLeastThreads = 192;
// Planes that a piece only reads, and the start of a block, in steps.
constexpr int64_t kStepsBesides = 3;
// Waves of blocks over the multiprocessors that are tried: the more, the better they fill the last
// one, and the more often the planes between two chunks are computed twice.
constexpr int64_t kMostWaves = 4;

// In shared memory.
inline int64_t cells(const Tiling& t, const Limits& limits) {
  return int64_t(t.strips) * (t.rows + limits.halo_rows_of_cells);
}

// Blocks that a multiprocessor has room for, with the smallest ring.
inline int64_t resident(const Tiling& t, const Limits& limits) {
  const int64_t bytes = cells(t, limits) * limits.cell.bytes(kFewestSlots) + limits.shared_reserved;
  return std::max<int64_t>(1, std::min<int64_t>(limits.most_threads / t.threads(),
                                                limits.shared_multiprocessor / bytes));
}

// The time of all blocks, in threads times steps of a multiprocessor. The `together` that it has
// room for share its time; those that find no room wait for a whole wave.
inline int64_t cost(const Tiling& t, const Limits& limits, int64_t together) {
  const int64_t on_each = ceil_div(t.blocks, limits.multiprocessors);
  const int64_t side_by_side = std::min(together, on_each);
  const int64_t warps = ceil_div(t.threads(), kWarp);
  const int64_t step = std::max(side_by_side * warps * kWarp, kLeastThreads);
  return ceil_div(on_each, together) * step * (t.chunk + 2 * t.margin + kStepsBesides);
}

// Completes a tiling whose tiles are given with some lengths of a chunk, and keeps the cheapest as
// `best`. Long chunks compute few planes twice; short ones leave no multiprocessor without work at
// the end.
inline void try_chunks(const Problem& p, const Limits& limits, Tiling t, Tiling& best,
                       int64_t& least) {
  const int64_t planes = p.window.hi[0] - p.window.lo[0];
  const int64_t columns = p.size[0] * p.size[1] * t.tiles_x * t.tiles_y;
  const int64_t pieces_per_block = p.dim == 2 ? t.rows : 1;
  const int64_t together = resident(t, limits);
  const int64_t at_once = together * limits.multiprocessors * pieces_per_block;
  for (int64_t waves = 1; waves <= kMostWaves; ++waves) {
    t.chunk = ceil_div(planes, std::clamp<int64_t>(waves * at_once / columns, 1, planes));
    t.chunks = ceil_div(planes, t.chunk);
    t.pieces = columns * t.chunks;
    t.blocks = ceil_div(t.pieces, pieces_per_block);
    const int64_t own = cost(t, limits, together);
    if (own >= least) continue;
    least = own;
    best = t;
  }
}

// Tiles along an axis and the length of each, in strips or in rows: a multiple of `unit`.
// Neighbours overlap by two halos.
struct Cut {
  int tiles, length;
};

// `more` tiles than it takes at least if none is longer than `longest`.
inline Cut cut(int64_t length, int64_t halo, int64_t longest, int64_t more, int64_t unit) {
  const int64_t inside = length - 2 * halo;
  const int64_t fewest = length <= longest ? 1 : ceil_div(inside, longest - 2 * halo);
  const auto whole = [unit](int64_t part) { return int(ceil_div(part, unit) * unit); };
  const int each = whole(ceil_div(inside, fewest + more) + 2 * halo);
  if (each >= length) return {1, whole(length)};
  return {int(ceil_div(inside, each - 2 * halo)), each};
}

// The most that leave room for the other blocks of a multiprocessor, and are no more than there are
// planes. One of a few numbers, for each of which a kernel has an instruction (ring.cuh).
inline int choose_slots(const Problem& p, const Tiling& t, const Limits& limits) {
  const int64_t room =
      std::min<int64_t>(limits.shared_bytes, limits.shared_multiprocessor / resident(t, limits) -
                                                 limits.shared_reserved);
  const int most = std::min(p.dim == 2 ? 8 : 6, t.chunk + 2 * t.margin + 2);
  for (const int slots : {8, 6, kGoodSlots}) {
    if (slots <= most && cells(t, limits) * limits.cell.bytes(slots) <= room) return slots;
  }
  return kFewestSlots;
}

// Numbers of tiles that are tried, beyond the fewest.
constexpr int64_t kMoreTilesX = 5, kMoreTilesY = 2;

// The cheapest of a few tilings, or one without threads where shared memory has no room for a warp.
// It depends on the sizes and on the GPU, and on nothing else.
inline Tiling make_tiling(const Problem& p, const Limits& limits) {
  Tiling t{};
  t.margin = limits.margin;
  // The kernel reads the window and the voxels around it.
  const int64_t v = limits.strip_voxels, unit = limits.rows_per_thread;
  t.first_x = int(std::max<int64_t>(p.window.lo[2] / v - 1, 0) * v);
  const int64_t end_x = std::min(ceil_div(p.window.hi[2], v) * v + v, p.size[4]);
  const int64_t row_strips = ceil_div(end_x - t.first_x, v);
  const int64_t halo = p.dim == 3 ? t.margin : 0;
  t.first_y = int(std::max<int64_t>(p.window.lo[1] - halo, 0));
  const int64_t rows = std::min(p.window.hi[1] + halo, p.size[3]) - t.first_y;

  const int64_t good = limits.shared_bytes / limits.cell.bytes(kGoodSlots);
  const int64_t most = limits.most_threads + limits.most_threads / 8;
  const int64_t room = good >= most ? good : limits.shared_bytes / limits.cell.bytes(kFewestSlots);
  // Threads along y that a tile takes at least: it has to write a row.
  const int64_t fewest_rows = ceil_div(2 * halo + 1, unit);
  const int64_t widest =
      std::min(room / (fewest_rows + limits.halo_rows_of_cells), limits.most_threads / fewest_rows);
  Tiling best{};
  int64_t least = std::numeric_limits<int64_t>::max();
  if (room < kWarp || widest < 3) return best;
  for (int64_t more_x = 0; more_x <= kMoreTilesX; ++more_x) {
    const Cut x = cut(row_strips, 1, widest, more_x, 1);
    t.tiles_x = x.tiles;
    t.strips = x.length;
    const int64_t most_rows =
        std::min(limits.most_threads / x.length, int(room / x.length) - limits.halo_rows_of_cells);
    for (int64_t more = 0; more <= kMoreTilesY; ++more) {
      // In 3D the most rows, or a few less; in 2D a half or a third of them: small images leave
      // multiprocessors without work otherwise.
      if (p.dim == 3) {
        const Cut y = cut(rows, halo, most_rows * unit, more, unit);
        t.tiles_y = y.tiles;
        t.rows = int(y.length / unit);
      } else {
        t.tiles_y = 1;
        t.rows = int(std::max<int64_t>(most_rows / (more + 1), 1));
      }
      try_chunks(p, limits, t, best, least);
    }
  }
  best.slots = choose_slots(p, best, limits);
  return best;
}

}  // namespace nec::cuda
