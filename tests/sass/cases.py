"""The cases: calls of cuda::forward and cuda::backward on small tensors, and what must come out (contract.md)."""

import math
from dataclasses import dataclass, field

import numpy as np
from memory import Memory
from project import DTYPES, KINDS, Call

SIZE = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
BITS = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}  # of the significand
SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan]
EXTREME = {
    "float64": [5e-324, -5e-324, 1.7e308, -1.7e308],
    "float32": [1e-45, -1e-45, 3.4e38, -3.4e38, -1.5e-38],
    "float16": [6e-8, -6e-8, 65504.0, -65504.0, -6.2e-5],
    "bfloat16": [9.2e-41, -9.2e-41, 3.38e38, -3.38e38, -1.2e-38],
}
ERROR_OF_SUM = {"float64": 1e-13}  # times sum|g * x|; the other types: 1e-6
GAP = 0xA5  # what lies between the elements of an operand


class Wrong(Exception):
    """A result is not what the contract says."""


# ---------------------------------------------------------------------------------------------------------------------
# Element types


def encode(values, dtype):
    """To bytes, rounded to nearest even."""
    if dtype == "bfloat16":
        bits = np.asarray(values, np.float32).view(np.uint32)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return np.where(np.isnan(np.asarray(values, np.float32)), 0x7FC0, rounded).astype("<u2").tobytes()
    with np.errstate(over="ignore"):
        return np.asarray(values).astype({"float64": "<f8", "float32": "<f4", "float16": "<f2"}[dtype]).tobytes()


def decode(data, dtype):
    """To float64, exactly."""
    if dtype == "bfloat16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return np.frombuffer(data, {"float64": "<f8", "float32": "<f4", "float16": "<f2"}[dtype]).astype(np.float64)


def rounded(values, dtype):
    return decode(encode(values, dtype), dtype)


def wide(dtype):
    """What elements are computed in."""
    return np.float64 if dtype == "float64" else np.float32


# ---------------------------------------------------------------------------------------------------------------------
# A case


@dataclass
class Layout:
    """Where an operand keeps its elements: (size, stride) of each dimension, none: dense; all from `offset` on."""

    dims: tuple = ()
    offset: int = 0

    def places(self, numel):
        """Of each element, relative to the operand's pointer."""
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
    """`alpha`: the type of the slopes, or 'value': one slope, given to the host."""

    direction: str
    dtype: str
    shape: tuple  # outer, channels, inner
    alpha: str = "float32"
    layouts: dict = field(default_factory=dict)  # of x, or of grad and saved
    special: bool = False
    multiprocessors: int = 2
    # forward
    relu: bool = False
    signed: bool = False
    mask: bool = False
    in_place: bool = False
    # backward
    kind: str = "input"
    grad_x: bool = True
    grad_alpha: str = "float32"  # type; empty: not wanted
    zero_slope: bool = False
    # to count instructions, or where the tensor is too large to be held
    all_negative: bool = False
    blocks: tuple = ()  # which to run; none: all
    repeat: int = 0  # the operands repeat after this many elements
    reaches_end: bool = True  # whether the last block writes the last element

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


def address(number):
    """Of an operand: a little below a multiple of 4 GiB, so that sums of addresses carry into the high word."""
    return ((0x7F00 + 16 * number) << 32) - 256


class Setup:
    """A case's operands in memory, and the call."""

    def __init__(self, project, case, seed=0):
        self.project, self.case, self.memory, self.call = project, case, Memory(), Call()
        self.rng = np.random.default_rng(seed)
        self.numel = case.repeat or case.numel
        channels = case.shape[1]
        c = self.call
        c.dtype, c.multiprocessors = DTYPES.index(case.dtype), case.multiprocessors
        c.outer, c.channels, c.inner = case.shape
        self.channel = (np.arange(self.numel) // case.shape[2]) % channels if self.numel else np.zeros(0, int)
        alpha_type = "float32" if case.alpha == "value" else case.alpha
        slopes = np.abs(self.rng.standard_normal(channels)) + 0.1
        if case.direction == "forward":
            slopes = slopes * np.where(np.arange(channels) % 3 == 1, -1, 1)
        if case.zero_slope:
            slopes[0] = 0
        self.slopes = rounded(slopes, alpha_type)
        c.alpha_dtype = DTYPES.index(alpha_type)
        if case.alpha == "value":
            c.alpha_value = self.slopes[0] if channels else 0.5
            self.alpha = np.full(self.numel, c.alpha_value)
        else:
            c.alpha = address(1)
            if case.relu:
                c.alpha = 0x10  # not to be read
            else:
                self.memory.add("alpha", c.alpha, encode(self.slopes, alpha_type))
            self.alpha = self.slopes[self.channel]
        (self.forward if case.direction == "forward" else self.backward)()
        self.memory.freeze()

    def values(self, name, extreme=False):
        case = self.case
        values = self.rng.standard_normal(self.numel)
        if case.all_negative:
            values = -np.abs(values) - 0.01
        if case.special:
            chosen = self.rng.random(self.numel) < 0.15
            values[chosen] = self.rng.choice(SPECIAL + (EXTREME[case.dtype] if extreme else []), chosen.sum())
        places = case.layouts.get(name, DENSE).places(self.numel)
        last = dict(zip(places.tolist(), values.tolist(), strict=True))  # elements may share a place
        return rounded([last[k] for k in places.tolist()], case.dtype)

    def place(self, name, number, values, operand, access="r"):
        """Puts an operand in memory as its layout says; what lies between its elements has no value."""
        layout, size = self.case.layouts.get(name, DENSE), SIZE[self.case.dtype]
        places = layout.places(self.numel)
        first, last = (int(places.min()), int(places.max())) if self.numel else (0, -1)
        data = np.full((last - first + 1, size), GAP, np.uint8)
        data[places - first] = np.frombuffer(encode(values, self.case.dtype), np.uint8).reshape(-1, size)
        given = np.zeros(data.shape, bool)
        given[places - first] = True
        operand.address = address(number) + (layout.offset - first) * size
        operand.ndim = len(layout.dims)
        for d, (length, stride) in enumerate(layout.dims):
            operand.size[d], operand.stride[d] = length, stride
        options = {"size": self.case.numel * size} if self.case.repeat and not layout.dims else {}
        start = address(number) + layout.offset * size
        self.memory.add(name, start, data.tobytes(), access, given.reshape(-1), **options)
        return places - first

    def output(self, name, number, size, count):
        if self.case.repeat:
            self.memory.add(name, address(number), 0, "log", size=count * size)
        else:
            self.memory.add(name, address(number), count * size, "w")
        return address(number)

    def forward(self):
        case, c = self.case, self.call
        self.x = self.values("x", extreme=True)
        self.x_places = self.place("x", 2, self.x, c.x, "rw" if case.in_place else "r")
        if case.in_place:
            c.y = c.x
        else:
            c.y.address = self.output("y", 3, SIZE[case.dtype], case.numel)
        if case.mask:
            c.mask = self.output("mask", 4, 1, -(-case.numel // 8))
        c.formula = 2 if case.relu else int(case.signed)

    def backward(self):
        case, c, kind = self.case, self.call, wide(self.case.dtype)
        self.grad, x = self.values("grad"), self.values("saved")
        alpha = self.alpha.astype(kind)
        self.negative = ~(x >= 0)
        self.saved, self.x = x, x
        if case.kind.startswith("output"):
            with np.errstate(all="ignore"):
                y = np.where(self.negative, alpha * x.astype(kind), x.astype(kind) + kind(0))
                self.saved = rounded(y, case.dtype)
                if case.kind == "output":
                    self.negative = np.signbit(self.saved) | np.isnan(self.saved)
                self.x = self.saved / self.alpha
        self.place("grad", 5, self.grad, c.grad)
        layout = case.layouts.get("grad_x", DENSE)
        self.order = np.argsort(layout.places(self.numel))  # of the elements, as the output keeps them
        c.grad_x.ndim = len(layout.dims)
        for d, (length, stride) in enumerate(layout.dims):
            c.grad_x.size[d], c.grad_x.stride[d] = length, stride
        c.kind = KINDS.index(case.kind)
        if case.kind != "mask":
            self.place("saved", 6, self.saved, c.saved)
        if case.kind.endswith("mask"):
            bits = np.packbits(self.negative[self.order].astype(np.uint8), bitorder="little").tobytes()
            self.memory.add("mask", address(4), bits, size=-(-case.numel // 8))
            c.mask = address(4)
        if case.grad_x:
            c.grad_x.address = self.output("grad_x", 7, SIZE[case.dtype], case.numel)
        if case.grad_alpha:
            c.grad_alpha, c.grad_alpha_dtype = address(8), DTYPES.index(case.grad_alpha)
            self.memory.add("grad_alpha", address(8), case.shape[1] * SIZE[case.grad_alpha], "w")
        if needed := self.project.workspace_bytes(c):
            if needed > 1 << 20:
                raise Wrong(f"a workspace of {needed} bytes, more than 1 MiB")
            c.workspace = address(9)
            self.memory.add("workspace", c.workspace, needed, "w")


# ---------------------------------------------------------------------------------------------------------------------
# What must come out


def same(name, got, expected):
    """Bit for bit, but for the payload of NaN."""
    fine = (got == expected) & (np.signbit(got) == np.signbit(expected)) | (np.isnan(got) & np.isnan(expected))
    if not fine.all():
        k = int(np.flatnonzero(~fine)[0])
        raise Wrong(f"{name}: {(~fine).sum()} of {fine.size} wrong, the first at {k}: {got[k]!r}, not {expected[k]!r}")


def expected_y(setup):
    case, kind = setup.case, wide(setup.case.dtype)
    x, alpha = setup.x.astype(kind), setup.alpha.astype(kind)
    with np.errstate(all="ignore"):
        if case.relu:
            y = np.where(x < 0, kind(0), x)
        else:
            y = np.where(~(x >= 0), alpha * x, x + kind(0) if case.signed else x)
        return rounded(y, case.dtype)


def expected_grad_x(setup):
    kind = wide(setup.case.dtype)
    grad, alpha = setup.grad.astype(kind), setup.alpha.astype(kind)
    with np.errstate(all="ignore"):
        return rounded(np.where(setup.negative, alpha * grad, grad), setup.case.dtype)


def check_written(setup, name):
    if missing := setup.memory.unwritten(name):
        raise Wrong(f"{name}: {missing} bytes were not written")


def check_elements(setup, name, expected):
    dtype, memory = setup.case.dtype, setup.memory
    if setup.case.repeat:
        return check_log(setup, name, SIZE[dtype], lambda k, data: same(name, decode(data, dtype), expected[k]))
    check_written(setup, name)
    same(name, decode(memory.bytes(name), dtype), expected)
    return None


def check_mask(setup, expected):
    bits = np.packbits(expected.astype(np.uint8), bitorder="little")
    cut = bits.copy()
    if rest := setup.case.numel % 8:
        cut[(setup.case.numel // 8) % bits.size] &= (1 << rest) - 1  # the last byte: nothing past the last element

    def same_bytes(k, data):
        got = np.frombuffer(data, np.uint8)
        wrong = (got != bits[k]) & (got != cut[k])
        if wrong.any():
            raise Wrong(f"mask: wrong at byte {int(k[wrong][0])}")

    if setup.case.repeat:
        return check_log(setup, "mask", 1, same_bytes)
    check_written(setup, "mask")
    same_bytes(np.arange(bits.size), setup.memory.bytes("mask"))
    return None


def check_log(setup, name, size, check):
    """check(element numbers modulo what repeats, bytes) of all that was written, for tensors that are not held."""
    region, seen = setup.memory.region(name), set()
    for offsets, data in region.log:
        elements = (offsets[:, None] // size + np.arange(data.shape[1] // size)).reshape(-1)
        seen.update((int(elements.min()), int(elements.max())))
        check(elements % (setup.numel if name != "mask" else setup.numel // 8), data.tobytes())
    if not seen or (setup.case.reaches_end and (min(seen), max(seen)) != (0, region.size // size - 1)):
        raise Wrong(f"{region.name}: the first or the last element was not written")


def check_in_place(setup):
    size, memory = SIZE[setup.case.dtype], setup.memory
    data = np.frombuffer(memory.bytes("x"), np.uint8).reshape(-1, size)
    between = np.ones(len(data), bool)
    between[setup.x_places] = False
    if (data[between] != GAP).any():
        raise Wrong("in place: wrote between the elements")
    same("y", decode(data[setup.x_places].tobytes(), setup.case.dtype), expected_y(setup))


def check_grad_alpha(setup):
    """Returns the worst error as a part of the allowed one."""
    case = setup.case
    check_written(setup, "grad_alpha")
    got, worst = decode(setup.memory.bytes("grad_alpha"), case.grad_alpha), 0.0
    with np.errstate(all="ignore"):
        terms = np.where(setup.negative, setup.grad * setup.x, 0.0)
    for channel in range(case.shape[1]):
        mine = terms[setup.channel == channel]
        if not np.isfinite(mine).all():
            with np.errstate(all="ignore"):
                same("grad_alpha", got[channel : channel + 1], np.array([mine.sum()]))
            continue
        exact, total = math.fsum(mine), math.fsum(np.abs(mine))
        allowed = ERROR_OF_SUM.get(case.dtype, 1e-6) * total
        allowed += (abs(exact) + allowed) * 2.0 ** -BITS[case.grad_alpha]  # the one rounding
        allowed += 6e-8 if case.grad_alpha == "float16" else 1e-40
        error = abs(got[channel] - exact)
        if not error <= allowed:
            times = f"{error / allowed:.3g} times what is allowed"
            raise Wrong(f"grad_alpha[{channel}]: {got[channel]!r}, not {exact!r}: {times}")
        worst = max(worst, error / allowed)
    return worst


BATCH = 64  # blocks that run at once


def run(project, arch, case, seed=0):
    """Runs a case on the emulator. Returns the kernels' names and the worst error of grad_alpha; raises otherwise."""
    setup = Setup(project, case, seed)
    launches = project.record(case.direction == "forward", setup.call)
    if case.blocks:
        launches = launches[:1]
    for launch in launches:
        setup.memory.new_launch()
        blocks = [launch.grid - 1 if b < 0 else b for b in case.blocks] or list(range(launch.grid))
        for k in range(0, len(blocks), BATCH):
            try:
                project.machine(arch, launch, setup.memory, blocks[k : k + BATCH]).run()
            except Exception as error:
                error.kernel = launch.kernel
                raise
    worst = 0.0
    if case.direction == "forward":
        if case.in_place:
            check_in_place(setup)
        elif case.numel:
            check_elements(setup, "y", expected_y(setup))
        if case.mask and case.numel:
            check_mask(setup, ~(setup.x >= 0))
    else:
        if case.grad_x and case.numel:
            check_elements(setup, "grad_x", expected_grad_x(setup)[setup.order])
        if case.grad_alpha and not case.blocks:
            worst = check_grad_alpha(setup)
    return [x.kernel for x in launches], worst


# ---------------------------------------------------------------------------------------------------------------------
# The list


def odd(offset=1):
    return Layout(offset=offset)


def rows(count, length, step, inner=1, offset=0):
    return Layout(((count, step), (length, inner)), offset)


EIGHT = Layout(tuple((2, 3 << k) for k in (3, 5, 0, 7, 1, 6, 2, 4)))


def forward_cases(t, quick):
    def case(shape, alpha="float32", **options):
        return Case("forward", t, shape, alpha, **options)

    yield case((1, 1, 3001), mask=True, special=True)
    yield case((1, 1, 2049), "value", relu=True, mask=True, special=True)
    yield case((1, 1, 1030), "value", signed=True, special=True)
    yield case((2, 5, 64), t, mask=True, special=True)
    yield case((3, 7, 33), mask=True, special=True)
    yield case((40, 13, 1), "bfloat16", mask=True, special=True)
    yield case((70, 64, 1), "float64", special=True)
    yield case((3, 4, 16), relu=True, mask=True, special=True)
    yield case((1, 1, 777), "float16", layouts={"x": odd()}, mask=True, special=True)
    yield case((3, 5, 31), t, layouts={"x": odd(3)}, mask=True, special=True)
    yield case((1, 1, 990), layouts={"x": rows(30, 33, 40)}, mask=True, special=True)
    yield case((2, 3, 20), layouts={"x": rows(6, 20, 0, -1)}, special=True)
    yield case((16, 4, 4), layouts={"x": EIGHT}, mask=True, special=True)
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
    yield case((3000, 3, 1), t, mask=True, multiprocessors=1)
    yield case((300, 24, 2), in_place=True)


def backward_cases(t, quick):
    def case(shape, alpha="float32", **options):
        return Case("backward", t, shape, alpha, **options)

    for kind in KINDS[:3]:
        yield case((1, 1, 5001), kind=kind)
        yield case((1, 1, 2501), kind=kind, special=True)
        yield case((150, 24, 1), kind=kind)
        yield case((40, 33, 1), kind=kind, special=True, grad_alpha=t)
    yield case((1, 1, 20011), multiprocessors=3)
    yield case((3, 5, 256), t)
    yield case((3, 5, 256), kind="output+mask", grad_alpha="float16")
    yield case((9, 130, 4), "bfloat16", grad_alpha="bfloat16")
    yield case((500, 7, 3))
    yield case((1500, 3, 1), grad_alpha=t)
    yield case((1, 1003, 1), "float64", grad_alpha="float64")
    yield case((1, 1, 200003), multiprocessors=16)  # many partial sums of one channel, and of several
    yield case((5000, 7, 3), multiprocessors=4)
    yield case((3, 5, 16), grad_x=False)
    yield case((1, 1, 2000), grad_x=False, special=True)
    yield case((3, 4, 32), kind="output", zero_slope=True)
    alone = {"grad_alpha": "", "special": True}
    yield case((1, 1, 3000), "value", **alone)
    yield case((1, 1, 3003), "value", kind="mask", **alone)
    yield case((3, 5, 16), t, kind="mask", **alone)
    yield case((3, 5, 3), kind="mask", **alone)
    yield case((30, 17, 3), kind="output", **alone)
    yield case((70, 64, 1), kind="output+mask", **alone)
    yield case((1, 1, 999), layouts={"grad": odd()})
    yield case((1, 1, 999), layouts={"grad": odd(3)}, kind="mask", **alone)
    yield case((30, 17, 3), layouts={"saved": odd()}, kind="output")
    yield case((3, 5, 300), layouts={"grad": odd(5)}, kind="output+mask")
    yield case((1, 1, 990), layouts={"saved": rows(30, 33, 40), "grad": Layout(((990, 0),))})
    yield case((33, 30, 1), layouts={"saved": rows(33, 30, 1, 33), "grad": rows(33, 30, -30)})
    yield case((16, 4, 4), layouts={"grad": EIGHT}, special=True)
    # alpha of shape (3, 16, 1, 1), x of shape (3, 16, 5, 4) and channels_last: counted as (20, 3, 16); and 15 channels
    per_sample = Layout(((20, 16), (3, 320), (16, 1)))
    yield case((20, 48, 1), t, layouts={"grad": per_sample, "saved": per_sample, "grad_x": per_sample})
    yield case((20, 48, 1), layouts={"saved": per_sample, "grad_x": per_sample}, kind="output+mask")
    yield case((20, 48, 1), layouts={"grad": per_sample, "grad_x": per_sample}, kind="mask", **alone)
    per_sample = Layout(((20, 15), (3, 300), (15, 1)))
    yield case((20, 45, 1), layouts={"grad": per_sample, "saved": per_sample, "grad_x": per_sample})
    yield case((20, 45, 1), layouts={"saved": per_sample, "grad_x": per_sample}, kind="output+mask", grad_x=False)
    yield case((20, 45, 1), layouts={"grad": per_sample, "grad_x": per_sample}, kind="mask", **alone)
    rows_of_four = Layout(((12, 64), (4, 4), (4, 16), (4, 1)))
    yield case((12, 4, 16), layouts={"saved": rows_of_four, "grad_x": rows_of_four}, kind="output+mask")
    yield case((0, 5, 3), grad_alpha=t)
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


LARGE = (1 << 31) + 4096 + 13  # indexed in 64 bits


def large_cases(t):
    """More than 2^31 elements, of which the first and the last block are run. The operands repeat."""
    options = {"blocks": (0, -1), "multiprocessors": 1 << 22, "special": True}

    def case(direction, shape, alpha="float32", **more):
        repeat = math.lcm(math.prod(shape[1:]) if shape[1] > 1 else 1, 1 << 14)
        return Case(direction, t, shape, alpha, **{**options, "repeat": repeat, **more})

    yield case("forward", (1, 1, LARGE), mask=True)
    yield case("forward", (LARGE // 64, 4, 16), mask=True)
    yield case("forward", (LARGE // 12, 12, 1), mask=True, reaches_end=False)
    yield case("forward", (1, 1, LARGE), layouts={"x": odd()})
    yield case("backward", (1, 1, LARGE), kind="mask", grad_alpha="")
    yield case("backward", (LARGE // 64, 4, 16), kind="output", grad_alpha="")
    yield case("backward", (1, 1, LARGE), layouts={"saved": odd()}, kind="input", grad_alpha="")
    yield case("backward", (LARGE // 12, 12, 1), kind="output+mask", grad_alpha="", reaches_end=False)
    for layouts in ({}, {"grad": odd()}):  # the sums themselves are not looked at
        yield case("backward", (1, 1, LARGE), layouts=layouts, reaches_end=False)
        yield case("backward", (LARGE // 64, 64, 1), layouts=layouts, reaches_end=False)


def cases(dtypes, quick):
    for t in dtypes:
        yield from forward_cases(t, quick)
        yield from backward_cases(t, quick)
    for t in dtypes[1:2] if quick else dtypes:
        yield from large_cases(t)
