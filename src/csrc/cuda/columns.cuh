// Slopes that change from element to element: the channel last, or rows that are shorter than a pack.
//
// The slopes repeat after channels * inner elements. A period is a number of packs after which they repeat too, so a
// thread that goes from period to period at one place, its column, meets the same slopes again: it reads them once, and
// sums d(alpha) for them in registers. A block takes `width` neighbouring columns and `groups` periods at once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "launch.h"

namespace leaky_ext::cuda {

template <typename Index>
struct Columns {
  Index period = 1;   // packs
  Index periods = 0;  // the last one may be cut short
  int width = 1, groups = 1;
  Index tiles = 1;  // of `width` columns each, to cover a period
  Index rows = 1;   // of blocks; row r takes the periods of groups r, r + rows, ...

  Columns() = default;
  template <typename Other>
  explicit Columns(const Columns<Other>& other)
      : period(Index(other.period)),
        periods(Index(other.periods)),
        width(other.width),
        groups(other.groups),
        tiles(Index(other.tiles)),
        rows(Index(other.rows)) {}

  int64_t blocks() const { return int64_t(tiles) * int64_t(rows); }
};

// `repeat`: elements after which the slopes repeat. `multiple`: of how many elements a period is to be (the pack's
// width, or 8 where bytes of a mask are put together by neighbouring threads). There are `max_rows` rows of blocks at
// most, and `max_blocks` blocks, except where a single row has more.
inline Columns<int64_t> make_columns(int64_t numel, int64_t repeat, int pack, int multiple, int64_t max_blocks,
                                     int64_t max_rows) {
  const int64_t lanes = multiple / pack;  // a tile is a multiple of this many packs wide
  const int64_t packs = ceil_div(numel, pack);
  Columns<int64_t> c;
  c.period = std::min(std::lcm(repeat, int64_t(multiple)) / pack, ceil_div(packs, lanes) * lanes);
  c.periods = ceil_div(packs, c.period);
  const int64_t widest = kThreads / std::min<int64_t>(8, c.periods) / lanes * lanes;
  c.width = int(ceil_div(ceil_div(c.period, ceil_div(c.period, widest)), lanes) * lanes);
  c.groups = kThreads / c.width;
  c.tiles = ceil_div(c.period, c.width);
  c.rows = std::min({ceil_div(c.periods, c.groups * kPacksPerThread), max_blocks / c.tiles, max_rows});
  c.rows = std::max<int64_t>(1, c.rows);
  return c;
}

// The part of one thread.
template <typename Index>
struct Column {
  int group;     // which of the block's periods
  Index number;  // of the column, in packs
  Index row;     // of blocks
  bool active;   // threads that are left over have no column

  __device__ explicit Column(const Columns<Index>& columns) {
    group = int(threadIdx.x) / columns.width;
    row = Index(blockIdx.x) / columns.tiles;
    number = (Index(blockIdx.x) - row * columns.tiles) * columns.width + (int(threadIdx.x) - group * columns.width);
    active = group < columns.groups && number < columns.period;
  }
};

}  // namespace leaky_ext::cuda
