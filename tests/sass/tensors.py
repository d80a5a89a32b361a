"""Creates the tensors of a case, and the arguments of its call."""

import numpy as np
from cases import DENSE
from elements import EXTREME, SIZE, SPECIAL, compute_type, encode, rounded
from errors import Wrong
from memory import Memory
from project import DTYPES, KINDS, Call

GAP = 0xA5  # each byte between the elements of an operand


def operand_address(number):
    """Returns an address 256 bytes below a multiple of 4 GiB. Offsets of 256 and more carry into the high word."""
    return ((0x7F00 + 16 * number) << 32) - 256


def set_view(operand, layout):
    operand.ndim = len(layout.dims)
    for d, (size, stride) in enumerate(layout.dims):
        operand.size[d], operand.stride[d] = size, stride


class Setup:
    """A case's operands in memory, and the call.

    `x`, `grad`, `saved` and `alpha` hold one value per element. `negative` selects the elements that count as negative.
    """

    def __init__(self, project, case):
        self.project, self.case, self.memory, self.call = project, case, Memory(), Call()
        self.rng = np.random.default_rng(0)
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
            c.alpha = operand_address(1)
            if case.relu:
                c.alpha = 0x10  # ReLU does not use alpha; a read raises Fault
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
        value_at = dict(zip(places.tolist(), values.tolist(), strict=True))  # elements can share their memory
        return rounded([value_at[k] for k in places.tolist()], case.dtype)

    def add_operand(self, name, number, values, operand, access="r"):
        """Writes an operand to memory in its layout. The bytes between its elements count as unwritten.

        Returns the indices of the elements in the operand's region.
        """
        layout, size = self.case.layouts.get(name, DENSE), SIZE[self.case.dtype]
        places = layout.places(self.numel)
        first, last = (int(places.min()), int(places.max())) if self.numel else (0, -1)
        data = np.full((last - first + 1, size), GAP, np.uint8)
        data[places - first] = np.frombuffer(encode(values, self.case.dtype), np.uint8).reshape(-1, size)
        initialized = np.zeros(data.shape, bool)
        initialized[places - first] = True
        operand.address = operand_address(number) + (layout.offset - first) * size
        set_view(operand, layout)
        options = {"size": self.case.numel * size} if self.case.repeat and not layout.dims else {}
        start = operand_address(number) + layout.offset * size
        self.memory.add(name, start, data.tobytes(), access, initialized.reshape(-1), **options)
        return places - first

    def add_output(self, name, number, size, count):
        """Allocates an output of `count` elements of `size` bytes, and returns its address."""
        if self.case.repeat:
            self.memory.add(name, operand_address(number), 0, "log", size=count * size)
        else:
            self.memory.add(name, operand_address(number), count * size, "w")
        return operand_address(number)

    def forward(self):
        case, c = self.case, self.call
        self.x = self.values("x", extreme=True)
        self.x_places = self.add_operand("x", 2, self.x, c.x, "rw" if case.in_place else "r")
        if case.in_place:
            c.y = c.x
        else:
            c.y.address = self.add_output("y", 3, SIZE[case.dtype], case.numel)
        if case.mask:
            c.mask = self.add_output("mask", 4, 1, -(-case.numel // 8))
        c.formula = 2 if case.relu else int(case.signed)

    def backward(self):
        case, c, kind = self.case, self.call, compute_type(self.case.dtype)
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
        self.add_operand("grad", 5, self.grad, c.grad)
        layout = case.layouts.get("grad_x", DENSE)
        self.order = np.argsort(layout.places(self.numel))  # the elements in the memory order of grad_x and the mask
        set_view(c.grad_x, layout)
        c.kind = KINDS.index(case.kind)
        if case.kind != "mask":
            self.add_operand("saved", 6, self.saved, c.saved)
        if case.kind.endswith("mask"):
            bits = np.packbits(self.negative[self.order].astype(np.uint8), bitorder="little").tobytes()
            self.memory.add("mask", operand_address(4), bits, size=-(-case.numel // 8))
            c.mask = operand_address(4)
        if case.grad_x:
            c.grad_x.address = self.add_output("grad_x", 7, SIZE[case.dtype], case.numel)
        if case.grad_alpha:
            c.grad_alpha, c.grad_alpha_dtype = operand_address(8), DTYPES.index(case.grad_alpha)
            self.memory.add("grad_alpha", operand_address(8), case.shape[1] * SIZE[case.grad_alpha], "w")
        if needed := self.project.workspace_bytes(c):
            if needed > 1 << 20:
                raise Wrong(f"the workspace has {needed} bytes, more than 1 MiB")
            c.workspace = operand_address(9)
            self.memory.add("workspace", c.workspace, needed, "w")
