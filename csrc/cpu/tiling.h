// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// How a problem is cut into pieces of work.
//
// A plane is cut into tiles so that the scratch memory of a tile stays in the second-level cache; a
// tile is swept along z. To have work for all threads, the z axis is cut into chunks. Neither
// changes a bit of the result: every voxel is computed the same way wherever it is, and sums are
// kept per tile and plane, a unit that depends on the problem alone, and added plane by plane:
// parts of a volume, swept one after the other, have the sums of the whole.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../problem.h"

namespace nec::cpu {

constexpr int64_t kCacheLine = 64;  // bytes

// Three planes of both images and two of the gradient under way, 8 rows of T for each row of a
// tile, should take less than half of a cache of 1 MB.
constexpr int64_t kTileBytes = 400 * 1024;
constexpr int64_t kRowsPerTileRow = 8;
constexpr int64_t kPaddingOfRow = 46;     // elements before and after a row, about (images.cpp)
constexpr int64_t kRowsBesideTile = 4;    // that are read too, two at each side
constexpr int64_t kMaxTileLength = 1024;  // of a row
// Length of a row that touches a cache line for each voxel: the lines have to stay until the rows
// beside it have used them, also where their strides put them into few sets of the cache.
constexpr int64_t kMaxGatheredLength = 256;
constexpr int64_t kMinTileRows = 8;
// Rows of several pairs are put side by side, two elements apart, to as many elements in all.
constexpr int64_t kJoinedLength = 96;

// A voxel takes about a nanosecond: below this many in all, waking a second thread costs more than
// it saves.
constexpr int64_t kMinVoxelsPerThread = 8192;
// Enough chunks per thread to even out unequal ones; long enough that the planes computed twice,
// two at every cut, stay a small part.
constexpr int64_t kChunksPerThread = 4;
constexpr int64_t kMinChunkVoxels = 16384;
constexpr int64_t kMinChunkPlanes = 16;

struct Tiling {
  Box window;
  int64_t pairs[2];   // of an input and a target: samples, channels
  int joining;        // pairs of one piece of work are consecutive samples (0) or channels (1),
  int64_t joined;     // so many
  int64_t groups[2];  // of them, along samples and channels
  int64_t tile[2];    // length along y, x
  int64_t tiles[2];   // how many along y, x
  int64_t planes;
  int64_t chunk;  // planes per piece of work
  int64_t chunks;
  int workers;

  int64_t pieces() const { return groups[0] * groups[1] * chunks * tiles[0] * tiles[1]; }
  int64_t partials() const { return groups[0] * groups[1] * planes * tiles[0] * tiles[1]; }
};

// Cuts `length` into equal parts of at most `most`.
inline int64_t even_part(int64_t length, int64_t most) {
  return ceil_div(length, ceil_div(length, most));
}

inline Tiling make_tiling(const Problem& p, int threads) {
  Tiling t;
  t.window = p.window;
  for (int k = 0; k < 2; ++k) t.pairs[k] = t.groups[k] = p.size[k];
  const auto length = [&](int axis) { return p.window.hi[axis] - p.window.lo[axis]; };
  const bool gathered = p.image[0].stride[4] * element_bytes(p.image[0].dtype) >= kCacheLine;
  t.tile[1] = even_part(length(2), gathered ? kMaxGatheredLength : kMaxTileLength);
  t.joining = t.pairs[0] < t.pairs[1];
  int64_t& groups = t.groups[t.joining];
  t.joined = even_part(groups, std::max<int64_t>(kJoinedLength / (length(2) + 2), 1));
  groups = ceil_div(groups, t.joined);
  const int64_t row_elements = t.joined * (t.tile[1] + 2) + kPaddingOfRow;
  const int64_t row_bytes = kRowsPerTileRow * row_elements * (p.wide ? 8 : 4);
  t.tile[0] =
      even_part(length(1), std::max(kMinTileRows, kTileBytes / row_bytes - kRowsBesideTile));
  for (int k = 0; k < 2; ++k) t.tiles[k] = ceil_div(length(k + 1), t.tile[k]);

  t.planes = length(0);

  const int64_t voxels = t.pairs[0] * t.pairs[1] * length(0) * length(1) * length(2);
  t.workers = int(std::clamp<int64_t>(voxels / kMinVoxelsPerThread, 1, threads));
  const int64_t columns = t.groups[0] * t.groups[1] * t.tiles[0] * t.tiles[1];
  const int64_t wanted = t.workers == 1 ? 1 : ceil_div(kChunksPerThread * t.workers, columns);
  const int64_t plane = t.joined * t.tile[0] * t.tile[1];
  const int64_t shortest = std::max(kMinChunkPlanes, ceil_div(kMinChunkVoxels, plane));
  t.chunk = std::max(ceil_div(length(0), wanted), std::min(shortest, length(0)));
  t.chunks = ceil_div(length(0), t.chunk);
  return t;
}

// One piece: some pairs, and the box of each whose gradient is written.
struct Piece {
  int64_t first[2];  // sample, channel
  int joining;       // the index that goes on from there
  int64_t pairs;
  Box box;
  int64_t first_partial, partial_stride;  // of its first plane, and from one plane to the next
};

inline Piece piece_at(const Tiling& t, int64_t index) {
  // z fastest: neighbours in time share the plane that both of them read.
  const int64_t chunk = index % t.chunks;
  const int64_t tile_x = index / t.chunks % t.tiles[1];
  const int64_t tile_y = index / t.chunks / t.tiles[1] % t.tiles[0];
  const int64_t group = index / t.chunks / t.tiles[1] / t.tiles[0];
  Piece piece{};
  piece.joining = t.joining;
  piece.first[0] = group / t.groups[1];
  piece.first[1] = group % t.groups[1];
  int64_t& first = piece.first[t.joining];
  first *= t.joined;
  piece.pairs = std::min(t.joined, t.pairs[t.joining] - first);
  const int64_t begin[3] = {chunk * t.chunk, tile_y * t.tile[0], tile_x * t.tile[1]};
  const int64_t length[3] = {t.chunk, t.tile[0], t.tile[1]};
  for (int k = 0; k < 3; ++k) {
    piece.box.lo[k] = t.window.lo[k] + begin[k];
    piece.box.hi[k] = std::min(piece.box.lo[k] + length[k], t.window.hi[k]);
  }
  const int64_t first_plane = group * t.planes + begin[0];
  piece.partial_stride = t.tiles[0] * t.tiles[1];
  piece.first_partial = (first_plane * t.tiles[0] + tile_y) * t.tiles[1] + tile_x;
  return piece;
}

}  // namespace nec::cpu
