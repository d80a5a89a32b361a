"""What instructions work on: the registers, constants and memory of all threads that run together."""

import numpy as np
from errors import Fault, Unsupported
from memory import WARP, SharedMemory
from numpy_types import S64, U8, U32, U64

NO_VALUE = 0xBAD0BAD1  # in registers that were not written
LOCAL_BYTES = 4096  # of local memory per thread


class InFlight:
    """Counts the bytes that a thread has requested from memory before it waits for any of them."""

    def __init__(self):
        self.pending, self.most = [], 0

    def issue(self, register_number, n):
        self.pending.append(({register_number + k for k in range(max(1, n // 4))}, n))
        self.most = max(self.most, sum(x for _, x in self.pending))

    def use(self, registers):
        for k in range(len(self.pending) - 1, -1, -1):
            if self.pending[k][0] & registers:
                del self.pending[: k + 1]  # loads arrive in order
                return


class Machine:
    """Some blocks of a launch.

    A register is a row of a NumPy array with one column per thread: R and U hold the registers and uniform registers, P
    and UP the predicates. `blocks` are the numbers of the blocks, in the grid. `trace` counts the first thread's bytes
    in flight.
    """

    def __init__(self, kernel, resources, launch, memory, blocks, trace=False):
        self.kernel, self.memory = kernel, memory
        self.constants = resources.constants
        blocks = np.asarray(blocks)
        self.block_threads = launch.block
        if launch.block % WARP:
            raise Unsupported("blocks of part of a warp")
        self.threads = blocks.size * launch.block
        self.lane = np.arange(self.threads) % WARP
        self.tid = (np.arange(self.threads) % launch.block).astype(U32)
        self.block = np.repeat(blocks.astype(U32), launch.block)
        self.who = self.block.astype(S64) * launch.block + self.tid  # the thread's number in the grid
        self.R = np.full((256, self.threads), NO_VALUE, U32)
        self.U = np.full((256, self.threads), NO_VALUE, U32)
        self.P = np.zeros((7, self.threads), bool)
        self.UP = np.zeros((7, self.threads), bool)
        shared_base = 0x400 if kernel.arch >= 90 else 0
        self.shared = SharedMemory(blocks.size, launch.block, shared_base, resources.shared + launch.shared_bytes)
        self.local = np.zeros((self.threads, LOCAL_BYTES), U8)
        self.in_flight = InFlight() if trace else None
        self.running = np.ones(self.threads, bool)  # the threads that execute the current instruction
        self.fill_constant_bank(resources, launch)

    def fill_constant_bank(self, resources, launch):
        """Fills bank 0: the launch's dimensions, the stack pointer, and the parameters."""
        size, stack, descriptor = (0x360, 0x37C, 0x358) if self.kernel.arch >= 100 else (0, 0x28, 0x118)
        grid = 0x370 if self.kernel.arch >= 100 else 0xC
        base, layout = resources.parameter_base, resources.parameter_layout
        self.bank = bytearray(base + max((offset + n for offset, n in layout), default=0))
        self.bank_known = bytearray(len(self.bank))
        numbers = [(size + 4 * k, x) for k, x in enumerate((launch.block, 1, 1))]
        numbers += [(grid + 4 * k, x) for k, x in enumerate((launch.grid, 1, 1))]
        numbers += [(stack, LOCAL_BYTES), (descriptor, 0), (descriptor + 4, 0)]
        if self.kernel.arch == 90:
            numbers += [(0x208, 0), (0x20C, 0)]
        for at, value in numbers:
            if at + 4 <= len(self.bank):
                self.bank[at : at + 4] = int(value).to_bytes(4, "little")
                self.bank_known[at : at + 4] = b"\1" * 4
        for (offset, n), data in zip(layout, launch.arguments, strict=True):
            self.bank[base + offset : base + offset + n] = data
        self.bank_known[base:] = b"\1" * (len(self.bank) - base)

    def constant_bytes(self, at, n):
        if at + n > len(self.bank):
            raise Fault(f"read past the parameters: c[0x0][{at:#x}]")
        if 0 in self.bank_known[at : at + n]:
            raise Unsupported(f"c[0x0][{at:#x}]")
        return self.bank[at : at + n]

    def constant(self, at, n):
        return (U32 if n == 4 else U64)(int.from_bytes(self.constant_bytes(at, n), "little"))

    def compiler_constant(self, at, n):
        """Reads bank 2, which holds constants that the compiler created for this kernel."""
        if at + n > len(self.constants):
            raise Fault(f"read past the kernel's constants: c[0x2][{at:#x}]")
        return (U32 if n == 4 else U64)(int.from_bytes(self.constants[at : at + n], "little"))

    def indexed_constant(self, offsets, n):
        offsets = self.spread(offsets, U32)
        value = np.zeros(self.threads, U32 if n == 4 else U64)
        for at in np.unique(offsets[self.running]):
            value[offsets == at] = self.constant(int(at), n)
        return value

    def special(self, name):
        if name == "SR_TID.X":
            return self.tid
        if name == "SR_CTAID.X":
            return self.block
        if name == "SR_LANEID":
            return self.lane
        if name in ("SR_CgaCtaId", "SR_TID.Y", "SR_TID.Z", "SR_CTAID.Y", "SR_CTAID.Z"):
            return 0
        raise Unsupported(name)

    def spread(self, value, kind):
        """Returns an array with one element per thread."""
        value = np.asarray(value, kind)
        return value if value.shape == (self.threads,) else np.broadcast_to(value, (self.threads,))

    def active(self, mask):
        """Returns the numbers of the threads in a mask."""
        return np.arange(self.threads) if mask is None else np.flatnonzero(mask)

    def read(self, name, addresses, n, active):
        if name == "LDS":
            return self.shared.load(addresses, n, active)
        if name == "LDL":
            return self.local[active[:, None], self.local_places(addresses, n)]
        return self.memory.load(addresses, n, self.who[active])

    def write(self, name, addresses, values, active):
        if name == "STS":
            self.shared.store(addresses, values, active)
        elif name == "STL":
            self.local[active[:, None], self.local_places(addresses, values.shape[1])] = values
        else:
            self.memory.store(addresses, values, self.who[active])

    def local_places(self, addresses, n):
        if (addresses.astype(S64) + n > self.local.shape[1]).any():
            raise Fault("local memory: access out of bounds")
        return addresses.astype(S64)[:, None] + np.arange(n)
