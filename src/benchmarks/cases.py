"""Which rows are measured: operators x directions x dtypes x layouts x sizes x threads x where outputs lie."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from .blocks import BLOCKS
from .implementations import FIXED, IMPLEMENTATIONS, LEARNABLE, STRAIGHT_THROUGH

K10, M1, M16 = 10_000, 1 << 20, 1 << 24

# Where the outputs of a call lie, by the settings of glibc's malloc that the measuring process is started with.
# default: what every process gets. Tensors above 32 MiB come as untouched pages at each call; below, memory is reused.
# fresh: untouched pages for all outputs. mapped: memory that the process already has, for all outputs.
MEMORY_TUNABLES = {
    "default": "",
    "fresh": "glibc.malloc.mmap_threshold=131072",
    "mapped": "glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=8589934592",
    "cached": "",  # CUDA: torch's caching allocator
}

# layout -> elements -> shape. "sliced" is the left half of a matrix twice as wide.
SHAPES: dict[str, dict[int, tuple[int, ...]]] = {
    "nchw": {K10: (4, 25, 10, 10), M1: (16, 64, 32, 32), M16: (64, 64, 64, 64), 1 << 26: (256, 64, 64, 64)},
    "btc": {K10: (4, 25, 100), M1: (8, 512, 256), M16: (32, 512, 1024), 1 << 26: (128, 512, 1024)},
    "sliced": {K10: (100, 100), M1: (1024, 1024), M16: (4096, 4096), 1 << 26: (8192, 8192)},
}
SHAPES["channels_last"] = SHAPES["nchw"]
PER_CHANNEL = ("nchw", "channels_last", "btc")


@dataclass(frozen=True)
class Case:
    """One row. All its implementations are measured in turns, in one process."""

    operator: str  # of IMPLEMENTATIONS; or of a block, then `block` names it
    direction: str  # forward (no gradient), backward (alone), both
    dtype: str
    layout: str
    numel: int
    threads: int
    memory: str
    device: str
    implementations: tuple[str, ...]
    block: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.numel,) if self.layout == "flat" else SHAPES[self.layout][self.numel]

    @property
    def channel_dim(self) -> int:
        return -1 if self.layout == "btc" else 1

    @property
    def label(self) -> str:
        where = f"{self.block} " if self.block else ""
        return (
            f"{where}{self.operator} {self.direction} {self.dtype} {self.layout} {size_name(self.numel)}"
            f" {threads_name(self.threads)} {self.memory}"
        )

    def key(self) -> dict[str, Any]:
        """What the row is, without who ran in it."""
        fields = asdict(self)
        del fields["implementations"]
        return fields


def threads_name(threads: int) -> str:
    return f"{threads} thread{'s' * (threads > 1)}"


def size_name(numel: int) -> str:
    if numel >= 1 << 20 and numel % (1 << 20) == 0:
        return f"{numel >> 20}M"
    for unit, scale in (("e6", 1_000_000), ("K", 1_000)):
        if numel >= scale and numel % scale == 0:
            return f"{numel // scale}{unit}"
    return str(numel)


# Measured at one size only.
VARIANTS = {LEARNABLE: ("leaky_ext, save=output", "where, alpha [1]"), FIXED: (), STRAIGHT_THROUGH: ()}


def eager(operator: str) -> tuple[str, ...]:
    leave_out = ("leaky_ext, one slope", *VARIANTS[operator])
    return tuple(n for n, i in IMPLEMENTATIONS[operator].items() if not i.compiled and n not in leave_out)


def compiled(operator: str) -> tuple[str, ...]:
    return tuple(f"{name}, compiled" for name in eager(operator))


# Compiled in more than one size; the others at one.
COMPILED = {
    LEARNABLE: ("leaky_ext, compiled", "where, compiled"),
    FIXED: ("leaky_ext, compiled",),
    STRAIGHT_THROUGH: ("leaky_ext, compiled", "F.relu, compiled"),
}
FEW = {  # where the slow ones would take minutes
    LEARNABLE: ("leaky_ext", "F.prelu", "F.leaky_relu"),
    FIXED: ("leaky_ext", "F.leaky_relu"),
    STRAIGHT_THROUGH: ("leaky_ext", "F.relu"),
}
LAYOUT = ("leaky_ext", "leaky_ext, one slope", "where", "F.prelu", "F.leaky_relu")
BLOCK = {
    LEARNABLE: ("leaky_ext", "where", "F.prelu", "F.leaky_relu"),
    STRAIGHT_THROUGH: ("leaky_ext", "NSReLU", "detach", "F.relu"),
}


def cpu_quick(threads: int) -> Iterator[Case]:
    for operator in IMPLEMENTATIONS:
        for numel in (100, K10, M1):
            yield Case(operator, "both", "float32", "flat", numel, threads, "default", "cpu", eager(operator))
    for operator in (LEARNABLE, STRAIGHT_THROUGH):
        for dtype in ("bfloat16", "float16"):
            yield Case(operator, "both", dtype, "flat", M1, threads, "default", "cpu", eager(operator))
        for direction in ("forward", "backward"):
            yield Case(operator, direction, "float32", "flat", M1, threads, "mapped", "cpu", eager(operator))
    for layout in PER_CHANNEL:
        yield Case(LEARNABLE, "both", "float32", layout, M1, threads, "default", "cpu", LAYOUT)
    yield block_case("mlp", STRAIGHT_THROUGH, threads, "cpu", compiled=False)


def cpu_full(threads: int) -> Iterator[Case]:
    thread_counts = sorted({1, threads})
    for operator in IMPLEMENTATIONS:
        names = FEW[operator] if operator == FIXED else eager(operator)
        for count in thread_counts:
            for numel in (100, 1_000, K10, 100_000, M1, M16):
                sizes = (100, K10, M1, M16) if count == threads else (M1, M16)
                extra = COMPILED[operator] if numel in sizes else ()
                if numel == M1 and count == threads:
                    extra = tuple(n for n in eager(operator) if n not in names)
                    extra += VARIANTS[operator] + compiled(operator)
                yield Case(operator, "both", "float32", "flat", numel, count, "default", "cpu", names + extra)
        for numel in (100, K10, M1, M16):
            yield Case(operator, "forward", "float32", "flat", numel, threads, "default", "cpu", names)
        for memory in ("mapped", "fresh"):
            for direction in ("forward", "backward", "both"):
                for numel in (M1, M16) if memory == "mapped" else (M1,):
                    yield Case(operator, direction, "float32", "flat", numel, threads, memory, "cpu", names)
    for operator in (LEARNABLE, STRAIGHT_THROUGH):
        for dtype in ("bfloat16", "float16", "float64"):
            for numel in (100, K10, M1, M16) if dtype != "float64" else (M1,):
                yield Case(operator, "both", dtype, "flat", numel, threads, "default", "cpu", eager(operator))
        yield Case(operator, "both", "float32", "flat", 100_000_000, threads, "default", "cpu", FEW[operator])
    for layout in (*PER_CHANNEL, "sliced"):
        names = LAYOUT if layout in PER_CHANNEL else tuple(n for n in LAYOUT if n != "leaky_ext, one slope")
        for numel in (K10, M1, M16):
            yield Case(LEARNABLE, "both", "float32", layout, numel, threads, "default", "cpu", names)
    yield from block_cases(threads, "cpu")


def cuda_quick(threads: int) -> Iterator[Case]:
    for operator in IMPLEMENTATIONS:
        for numel in (1_024, M1, M16):
            yield Case(operator, "both", "float32", "flat", numel, threads, "cached", "cuda", eager(operator))
    yield Case(LEARNABLE, "both", "bfloat16", "nchw", M16, threads, "cached", "cuda", LAYOUT)


def cuda_full(threads: int) -> Iterator[Case]:
    def case(operator: str, direction: str, dtype: str, layout: str, numel: int, names: tuple[str, ...]) -> Case:
        return Case(operator, direction, dtype, layout, numel, threads, "cached", "cuda", names)

    for operator in IMPLEMENTATIONS:
        for numel in (128, 1_024, K10, 100_000, M1, M16, 1 << 26, 1 << 27):
            extra = COMPILED[operator] if numel in (1_024, 1 << 26) else ()
            if numel == M1:
                extra = VARIANTS[operator] + compiled(operator)
            yield case(operator, "both", "float32", "flat", numel, eager(operator) + extra)
        for dtype in ("float32", "bfloat16", "float16"):
            for numel in (M16, 1 << 26):
                for direction in ("forward", "backward"):
                    yield case(operator, direction, dtype, "flat", numel, eager(operator))
                if dtype != "float32":
                    extra = COMPILED[operator] if numel != M16 and dtype == "bfloat16" else ()
                    yield case(operator, "both", dtype, "flat", numel, eager(operator) + extra)
    for layout in (*PER_CHANNEL, "sliced"):
        names = LAYOUT if layout in PER_CHANNEL else tuple(n for n in LAYOUT if n != "leaky_ext, one slope")
        for dtype in ("float32", "bfloat16", "float16") if layout in ("nchw", "channels_last") else ("float32",):
            for direction in ("forward", "backward", "both"):
                yield case(LEARNABLE, direction, dtype, layout, 1 << 26, names)
    yield from block_cases(threads, "cuda")


def block_case(name: str, operator: str, threads: int, device: str, compiled: bool) -> Case:
    memory = "cached" if device == "cuda" else "default"
    names: tuple[str, ...] = BLOCK[operator]
    if compiled:
        names += tuple(f"{n}, compiled" for n in names if n in ("leaky_ext", "F.prelu", "F.relu"))
    numel = BLOCKS[name].activations
    return Case(operator, "both", "float32", "block", numel, threads, memory, device, names, block=name)


def block_cases(threads: int, device: str) -> Iterator[Case]:
    for name in BLOCKS:
        for operator in BLOCK:
            # Compiling a convolution block takes ten seconds each: one operator where people use it most.
            usual = {"residual": (STRAIGHT_THROUGH,), "unet": (LEARNABLE,)}.get(name, tuple(BLOCK))
            yield block_case(name, operator, threads, device, compiled=operator in usual)


SUITES = {
    ("cpu", "quick"): cpu_quick,
    ("cpu", "full"): cpu_full,
    ("cuda", "quick"): cuda_quick,
    ("cuda", "full"): cuda_full,
}


def select(device: str, suite: str, threads: int, pattern: str = "") -> list[Case]:
    """The cases of a suite whose label matches the regular expression."""
    return [case for case in SUITES[device, suite](threads) if re.search(pattern, case.label)]
