"""The cases: calls of cuda::forward and cuda::backward on small tensors."""

import math
from dataclasses import dataclass, field

import numpy as np
from project import KINDS


@dataclass
class Layout:
    """The layout of an operand: (size, stride) of each dimension, outermost first. Without `dims`, it is dense.

    `offset` is the distance in elements from an aligned address to the first element in memory.
    """

    dims: tuple = ()
    offset: int = 0

    def places(self, numel):
        """Returns the index of each element in memory, relative to the operand's pointer."""
        if not self.dims:
            return np.arange(numel)
        sizes = [size for size, _ in self.dims]
        if math.prod(sizes) != numel:
            raise ValueError(f"{self} does not hold {numel} elements")
        index = np.unravel_index(np.arange(numel), sizes)
        return sum(i * stride for i, (_, stride) in zip(index, self.dims, strict=True))


DENSE = Layout()


@dataclass
class Case:
    direction: str  # "forward" or "backward"
    dtype: str
    shape: tuple  # outer, channels, inner
    alpha: str = "float32"  # type of the slopes; "value": one slope, passed as a number on the host
    layouts: dict = field(default_factory=dict)  # of x, or of grad, saved and grad_x; others are dense
    special: bool = False  # some values are zeros, infinities or NaN
    multiprocessors: int = 2
    # forward
    relu: bool = False
    signed: bool = False
    mask: bool = False
    in_place: bool = False
    # backward
    kind: str = "input"
    grad_x: bool = True
    grad_alpha: str = "float32"  # type; empty: not computed
    zero_slope: bool = False  # of the first channel
    # for the table, and for tensors that are too large for memory
    all_negative: bool = False
    blocks: tuple = ()  # numbers of the blocks to run, -1 is the last; empty: all
    repeat: int = 0  # if not 0, the operands repeat after this many elements
    reaches_end: bool = True  # the last block writes the last element

    def __str__(self):
        words = [self.direction, self.dtype, "x".join(map(str, self.shape)), f"alpha {self.alpha}"]
        if self.direction == "forward":
            words += [x for x in ("relu", "signed", "mask", "in_place") if getattr(self, x)]
        else:
            words += [f"saved {self.kind}", "grad_x" * self.grad_x]
            words += [f"grad_alpha {self.grad_alpha}" * bool(self.grad_alpha)]
        for name, layout in self.layouts.items():
            words.append(f"{name} {list(layout.dims) or 'dense'} + {layout.offset}")
        words += [x for x in ("special", "zero_slope") if getattr(self, x)]
        if self.blocks:
            words.append(f"blocks {self.blocks}")
        return ", ".join(x for x in words if x)

    @property
    def numel(self):
        return math.prod(self.shape)


# ---------------------------------------------------------------------------------------------------------------------
# The list


def shifted(offset=1):
    """Returns a dense layout that is not aligned to 16 bytes."""
    return Layout(offset=offset)


def rows(count, length, step, inner=1, offset=0):
    return Layout(((count, step), (length, inner)), offset)


EIGHT_DIMS = Layout(tuple((2, 3 << k) for k in (3, 5, 0, 7, 1, 6, 2, 4)))


def forward_cases(dtype, quick):
    def case(shape, alpha="float32", **options):
        return Case("forward", dtype, shape, alpha, **options)

    yield case((1, 1, 3001), mask=True, special=True)
    yield case((1, 1, 2049), "value", relu=True, mask=True, special=True)
    yield case((1, 1, 1030), "value", signed=True, special=True)
    yield case((2, 5, 64), dtype, mask=True, special=True)
    yield case((3, 7, 33), mask=True, special=True)
    yield case((40, 13, 1), "bfloat16", mask=True, special=True)
    yield case((70, 64, 1), "float64", special=True)
    yield case((3, 4, 16), relu=True, mask=True, special=True)
    yield case((1, 1, 777), "float16", layouts={"x": shifted()}, mask=True, special=True)
    yield case((3, 5, 31), dtype, layouts={"x": shifted(3)}, mask=True, special=True)
    yield case((1, 1, 990), layouts={"x": rows(30, 33, 40)}, mask=True, special=True)
    yield case((2, 3, 20), layouts={"x": rows(6, 20, 0, -1)}, special=True)
    yield case((16, 4, 4), layouts={"x": EIGHT_DIMS}, mask=True, special=True)
    yield case((1, 1, 1025), in_place=True, mask=True, special=True)
    yield case((1, 1, 990), layouts={"x": rows(30, 33, 40, offset=1)}, in_place=True, signed=True)
    yield case((0, 5, 3), mask=True)
    for n in (1, 7, 9) if quick else (1, 2, 3, 4, 5, 7, 8, 9, 15, 17, 31):
        yield case((1, 1, n), mask=True, special=True)
    if quick:
        return
    yield case((5, 3, 8), "float16")
    yield case((17, 1, 31), layouts={"x": rows(17, 31, 1, 17)}, special=True)
    yield case((1, 1, 140001), multiprocessors=1, mask=True)
    yield case((1, 9000, 1), mask=True)
    yield case((3000, 3, 1), dtype, mask=True, multiprocessors=1)
    yield case((300, 24, 2), in_place=True)


def backward_cases(dtype, quick):
    def case(shape, alpha="float32", **options):
        return Case("backward", dtype, shape, alpha, **options)

    for kind in KINDS[:3]:
        yield case((1, 1, 5001), kind=kind)
        yield case((1, 1, 2501), kind=kind, special=True)
        yield case((150, 24, 1), kind=kind)
        yield case((40, 33, 1), kind=kind, special=True, grad_alpha=dtype)
    yield case((1, 1, 20011), multiprocessors=3)
    yield case((3, 5, 256), dtype)
    yield case((3, 5, 256), kind="output+mask", grad_alpha="float16")
    yield case((9, 130, 4), "bfloat16", grad_alpha="bfloat16")
    yield case((500, 7, 3))
    yield case((1500, 3, 1), grad_alpha=dtype)
    yield case((1, 1003, 1), "float64", grad_alpha="float64")
    yield case((1, 1, 200003), multiprocessors=16)  # many partial sums of one channel
    yield case((5000, 7, 3), multiprocessors=4)  # and of several channels
    yield case((3, 5, 16), grad_x=False)
    yield case((1, 1, 2000), grad_x=False, special=True)
    yield case((3, 4, 32), kind="output", zero_slope=True)
    alone = {"grad_alpha": "", "special": True}
    yield case((1, 1, 3000), "value", **alone)
    yield case((1, 1, 3003), "value", kind="mask", **alone)
    yield case((3, 5, 16), dtype, kind="mask", **alone)
    yield case((3, 5, 3), kind="mask", **alone)
    yield case((30, 17, 3), kind="output", **alone)
    yield case((70, 64, 1), kind="output+mask", **alone)
    yield case((1, 1, 999), layouts={"grad": shifted()})
    yield case((1, 1, 999), layouts={"grad": shifted(3)}, kind="mask", **alone)
    yield case((30, 17, 3), layouts={"saved": shifted()}, kind="output")
    yield case((3, 5, 300), layouts={"grad": shifted(5)}, kind="output+mask")
    yield case((1, 1, 990), layouts={"saved": rows(30, 33, 40), "grad": Layout(((990, 0),))})
    yield case((33, 30, 1), layouts={"saved": rows(33, 30, 1, 33), "grad": rows(33, 30, -30)})
    yield case((16, 4, 4), layouts={"grad": EIGHT_DIMS}, special=True)
    # A channels_last x of shape (3, 16, 5, 4), and alpha of shape (3, 16, 1, 1). Elements are counted as (20, 3, 16).
    per_sample = Layout(((20, 16), (3, 320), (16, 1)))
    yield case((20, 48, 1), dtype, layouts={"grad": per_sample, "saved": per_sample, "grad_x": per_sample})
    yield case((20, 48, 1), layouts={"saved": per_sample, "grad_x": per_sample}, kind="output+mask")
    yield case((20, 48, 1), layouts={"grad": per_sample, "grad_x": per_sample}, kind="mask", **alone)
    # The same with 15 channels. They do not fill whole 16-byte packs.
    per_sample = Layout(((20, 15), (3, 300), (15, 1)))
    yield case((20, 45, 1), layouts={"grad": per_sample, "saved": per_sample, "grad_x": per_sample})
    yield case((20, 45, 1), layouts={"saved": per_sample, "grad_x": per_sample}, kind="output+mask", grad_x=False)
    yield case((20, 45, 1), layouts={"grad": per_sample, "grad_x": per_sample}, kind="mask", **alone)
    rows_of_four = Layout(((12, 64), (4, 4), (4, 16), (4, 1)))
    yield case((12, 4, 16), layouts={"saved": rows_of_four, "grad_x": rows_of_four}, kind="output+mask")
    yield case((0, 5, 3), grad_alpha=dtype)
    yield case((3, 0, 2))
    for n in (1, 9) if quick else (1, 2, 3, 4, 5, 7, 8, 9, 15, 17, 31):
        yield case((1, 1, n), special=True)
    if quick:
        return
    yield case((600, 64, 1), multiprocessors=1)
    yield case((40, 3, 1024), multiprocessors=1)
    yield case((30000, 3, 1), multiprocessors=2, kind="output+mask")
    yield case((900, 40, 2), multiprocessors=1, grad_alpha="float64")
    yield case((2, 700, 64), multiprocessors=1)
    yield case((1, 1, 300000), multiprocessors=1)


LARGE = (1 << 31) + 4096 + 13  # elements; the kernels need 64-bit indices


def large_cases(dtype):
    """Yields cases with more than 2^31 elements. Only the first and the last block run, and the operands repeat."""
    options = {"blocks": (0, -1), "multiprocessors": 1 << 22, "special": True}

    def case(direction, shape, alpha="float32", **more):
        repeat = math.lcm(math.prod(shape[1:]) if shape[1] > 1 else 1, 1 << 14)
        return Case(direction, dtype, shape, alpha, **{**options, "repeat": repeat, **more})

    yield case("forward", (1, 1, LARGE), mask=True)
    yield case("forward", (LARGE // 64, 4, 16), mask=True)
    yield case("forward", (LARGE // 12, 12, 1), mask=True, reaches_end=False)
    yield case("forward", (1, 1, LARGE), layouts={"x": shifted()})
    yield case("backward", (1, 1, LARGE), kind="mask", grad_alpha="")
    yield case("backward", (LARGE // 64, 4, 16), kind="output", grad_alpha="")
    yield case("backward", (1, 1, LARGE), layouts={"saved": shifted()}, kind="input", grad_alpha="")
    yield case("backward", (LARGE // 12, 12, 1), kind="output+mask", grad_alpha="", reaches_end=False)
    for layouts in ({}, {"grad": shifted()}):  # grad_alpha is not checked: most blocks do not run
        yield case("backward", (1, 1, LARGE), layouts=layouts, reaches_end=False)
        yield case("backward", (LARGE // 64, 64, 1), layouts=layouts, reaches_end=False)


def cases(dtypes, quick):
    for dtype in dtypes:
        yield from forward_cases(dtype, quick)
        yield from backward_cases(dtype, quick)
    for dtype in dtypes[1:2] if quick else dtypes:
        yield from large_cases(dtype)
