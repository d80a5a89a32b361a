// Slopes that change from element to element: the channel last, or rows that are shorter than a pack.
//
// The slopes repeat after channels * inner elements. A period is the number of packs after which they repeat at the
// same positions of the packs. A thread stays in one column: it goes from period to period, and has the same slopes in
// each. So it reads its slopes once, and has one sum of d(alpha) for each of them.
//
//                 one period: `across` blocks of `width` columns
//                +--------------+--------------+--------------+
//     period 0   | block 0      | block 1      | block 2      |   A tile has groups * packs_in_flight periods. A thread
//     period 1   |   groups = 2 |              |              |   has one pack in every groups-th of them.
//     period 2   |   in flight  |              |              |
//     period 3   |     = 2      |              |              |   Row r of blocks processes tiles r, r + rows, ...
//                +--------------+--------------+--------------+
//     period 4   | block 3      | block 4      | block 5      |   rows = 2
//        ...     |              |              |              |
//     the last   |              |  (may be incomplete)        |
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
  Index whole_tiles = 0;  // an incomplete one may follow
  Index stride = 1;       // elements between two packs of a thread

  int64_t blocks() const { return int64_t(across) * int64_t(rows); }

  template <typename Other>
  Columns<Other> as() const {
    return {Other(period), width, groups, Other(across), Other(rows), Other(whole_tiles), Other(stride)};
  }
};

// Chooses the columns. `repeat`: elements after which the slopes repeat. `multiple`: a period is a multiple of this
// many elements (the width of a pack; 8 if neighbouring threads share a byte of the mask). There is one row of blocks
// if each thread then has at most `packs_of_one_row` packs. Otherwise there is up to one tile per block, at most
// `max_rows` rows, and at most `max_blocks` blocks, unless one row has more.
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

// The column of one thread.
template <typename Index>
struct Column {
  int group;       // which of the block's periods
  Index number;    // of the column, in packs
  Index row;       // of blocks
  bool active;     // false: the thread has no column. It writes nothing, and may read packs of another thread
  uint64_t first;  // element of the first pack

  __device__ __forceinline__ Column(const Columns<Index>& columns, int pack) {
    group = int(threadIdx.x) / columns.width;
    row = Index(blockIdx.x) / columns.across;
    number = (Index(blockIdx.x) - row * columns.across) * columns.width + (int(threadIdx.x) - group * columns.width);
    active = group < columns.groups && number < columns.period;
    first = active ? (group * columns.period + number) * pack : 0;
  }
};

// The parameters of a kernel that works by columns.
template <typename Base>
struct ByColumns : Base {
  Channels<typename Base::Index> channels;
  Columns<typename Base::Index> columns;

  template <typename Args, typename Kind>
  ByColumns(const Args& args, Kind kind, const Columns<int64_t>& columns)
      : Base(args, kind), channels(args.shape), columns(columns.template as<typename Base::Index>()) {}
};

// The packs of one thread in a tile.
template <typename Operand, bool kWhole>
struct ColumnPacks : Packs<Operand> {
  template <typename Params>
  __device__ __forceinline__ ColumnPacks(const Params& p, const Column<typename Operand::Index>& column,
                                         typename Operand::Index tile) {
    // The end of an incomplete tile may exceed the index type.
    using Element = std::conditional_t<kWhole, typename Operand::Index, uint64_t>;
#pragma unroll
    for (int u = 0; u < Packs<Operand>::kPacks; ++u) {
      this->i[u] = (Element(tile) * Packs<Operand>::kPacks + u) * p.columns.stride + Element(column.first);
      this->count[u] = kWhole ? Operand::kWidth : column.active ? elements_at<Operand>(this->i[u], p.numel) : 0;
    }
  }
};

// Calls body(packs) for each tile of a block.
template <typename Base, typename Body>
__device__ __forceinline__ void for_tiles(const ByColumns<Base>& p, const Column<typename Base::Index>& column,
                                          Body body) {
  using Operand = typename Base::OperandType;
  typename Base::Index tile = column.row;
  for (; tile < p.columns.whole_tiles; tile += p.columns.rows) body(ColumnPacks<Operand, true>(p, column, tile));
  if (tile == p.columns.whole_tiles) body(ColumnPacks<Operand, false>(p, column, tile));
}

// The slopes of a column.
template <typename Operand>
struct ColumnSlopes {
  using V = Wide<typename Operand::T>;
  Slope<V> of[Operand::kWidth];  // the elements of a pack

  template <typename Base>
  __device__ __forceinline__ ColumnSlopes(const ByColumns<Base>& p, const Column<typename Operand::Index>& column) {
    RawSlope raw[Operand::kWidth];
#pragma unroll
    for (int j = 0; j < Operand::kWidth; ++j) {
      const typename Operand::Index i = column.number * Operand::kWidth + j;
      raw[j] = column.active && i < p.numel ? load_slope(p.alpha, int64_t(p.channels.of(i))) : 0;
    }
#pragma unroll
    for (int j = 0; j < Operand::kWidth; ++j) of[j] = Slope<V>(to_slope<V>(p.alpha, raw[j]));
  }
};

}  // namespace leaky_ext::cuda
