// Slopes that change from element to element: the channel last, or rows that are shorter than a pack.
//
// The slopes repeat after channels * inner elements. A period is a number of packs after which they repeat too, so a
// thread that goes from period to period at one place, its column, meets the same slopes again: it reads them once, and
// sums d(alpha) for them.
//
//                 one period: `across` blocks of `width` columns
//                +--------------+--------------+--------------+
//     period 0   | block 0      | block 1      | block 2      |   A tile of a block is groups * packs_in_flight
//     period 1   |   groups = 2 |              |              |   periods: each thread has one pack in every groups-th
//     period 2   |   in flight  |              |              |   of them in flight. Row r of blocks takes the tiles
//     period 3   |     = 2      |              |              |   r, r + rows, r + 2 * rows, ...
//                +--------------+--------------+--------------+
//     period 4   | block 3      | block 4      | block 5      |   rows = 2
//        ...     |              |              |              |
//     the last   |              |       (may be cut short)    |
//                +--------------+--------------+--------------+
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "launch.h"
#include "slope.cuh"

namespace leaky_ext::cuda {

template <typename Index>
struct Columns {
  Index period = 1;  // packs
  int width = 1, groups = 1;
  Index across = 1;       // blocks side by side, to cover a period
  Index rows = 1;         // of blocks
  Index whole_tiles = 0;  // followed by one that is cut short, or by none
  Index stride = 1;       // elements between two packs of a thread

  Columns() = default;
  template <typename Other>
  explicit Columns(const Columns<Other>& other)
      : period(Index(other.period)),
        width(other.width),
        groups(other.groups),
        across(Index(other.across)),
        rows(Index(other.rows)),
        whole_tiles(Index(other.whole_tiles)),
        stride(Index(other.stride)) {}

  int64_t blocks() const { return int64_t(across) * int64_t(rows); }
};

// `repeat`: elements after which the slopes repeat. `multiple`: of how many elements a period is to be (the pack's
// width, or 8 where bytes of a mask are put together by neighbouring threads). One row of blocks, if each thread has at
// most `packs_of_one_row` packs then; else up to one tile a block, but at most `max_rows` rows, and `max_blocks` blocks
// except where a single row has more.
inline Columns<int64_t> make_columns(int64_t numel, int64_t repeat, int pack, int multiple, int64_t packs_of_one_row,
                                     int64_t max_blocks, int64_t max_rows) {
  const int64_t lanes = multiple / pack;  // a block is a multiple of this many packs wide
  const int64_t packs = ceil_div(numel, pack);
  Columns<int64_t> c;
  c.period = std::min(std::lcm(repeat, int64_t(multiple)) / pack, ceil_div(packs, lanes) * lanes);
  const int64_t periods = ceil_div(packs, c.period);
  const int64_t widest = kThreads / std::min<int64_t>(8, periods) / lanes * lanes;
  c.width = int(ceil_div(ceil_div(c.period, ceil_div(c.period, widest)), lanes) * lanes);
  c.groups = kThreads / c.width;
  c.across = ceil_div(c.period, c.width);
  c.stride = c.groups * c.period * pack;
  const int64_t tile = c.stride * packs_in_flight(pack);  // elements of all blocks side by side
  c.whole_tiles = numel / tile;
  if (periods > c.groups * packs_of_one_row) {
    c.rows = std::max<int64_t>(1, std::min({ceil_div(numel, tile), max_blocks / c.across, max_rows}));
  }
  return c;
}

// The part of one thread.
template <typename Index>
struct Column {
  int group;       // which of the block's periods
  Index number;    // of the column, in packs
  Index row;       // of blocks
  bool active;     // threads that are left over have no column: they write nothing, and may read another's packs
  uint64_t first;  // element of the first pack

  __device__ __forceinline__ Column(const Columns<Index>& columns, int pack) {
    group = int(threadIdx.x) / columns.width;
    row = Index(blockIdx.x) / columns.across;
    number = (Index(blockIdx.x) - row * columns.across) * columns.width + (int(threadIdx.x) - group * columns.width);
    active = group < columns.groups && number < columns.period;
    first = active ? (group * columns.period + number) * pack : 0;
  }
};

// The packs of one thread in a tile.
template <typename Operand>
struct ColumnPacks : Packs<Operand> {
  template <typename Whole>
  __device__ __forceinline__ ColumnPacks(Whole, const Column<typename Operand::Index>& column,
                                         const Columns<typename Operand::Index>& columns, typename Operand::Index tile,
                                         typename Operand::Index numel) {
    // A tile that is cut short may reach past what the index type holds.
    using Element = std::conditional_t<Whole::value, typename Operand::Index, uint64_t>;
#pragma unroll
    for (int u = 0; u < Packs<Operand>::kPacks; ++u) {
      this->i[u] = (Element(tile) * Packs<Operand>::kPacks + u) * columns.stride + Element(column.first);
      this->count[u] = Whole::value ? Operand::kWidth : column.active ? elements_at<Operand>(this->i[u], numel) : 0;
    }
  }
};

// The slopes of a column.
template <typename Operand>
__device__ __forceinline__ void column_slopes(const Alpha& alpha, const Channels<typename Operand::Index>& channels,
                                              const Column<typename Operand::Index>& column,
                                              typename Operand::Index numel,
                                              Slope<Wide<typename Operand::T>> (&slopes)[Operand::kWidth]) {
  using Index = typename Operand::Index;
  RawSlope raw[Operand::kWidth];
#pragma unroll
  for (int j = 0; j < Operand::kWidth; ++j) {
    const Index i = column.number * Operand::kWidth + j;
    raw[j] = column.active && i < numel ? load_slope(alpha, int64_t(channels.of(i))) : 0;
  }
#pragma unroll
  for (int j = 0; j < Operand::kWidth; ++j) {
    slopes[j] = Slope<Wide<typename Operand::T>>(to_slope<Wide<typename Operand::T>>(alpha, raw[j]));
  }
}

}  // namespace leaky_ext::cuda
