"""Loads and stores."""

import numpy as np
from errors import Unsupported
from numpy_types import U8, U16, U32
from operands import address, register, split_predicates

from .registry import needs, opcode

ACCESS_SIZES = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "32": 4, "64": 8, "128": 16}


def access_size(mods):
    """Returns the bytes that a load or a store moves per thread."""
    for mod in mods:
        if mod in ACCESS_SIZES:
            return ACCESS_SIZES[mod]
        if mod.isdigit():
            raise Unsupported(f"accesses of {mod} bits")
    return 4


@opcode("LDG", "LD", "LDS", "LDL", named=True)
def load(mods, args, name):
    outs, args = split_predicates(args)
    needs(not outs and len(args) == 2)
    needs(not {"S8", "S16"} & set(mods))
    n, where = access_size(mods), register(args[0])
    place = address(args[1], name in ("LDG", "LD"))

    def run(m, mask):
        active = m.active(mask)
        values = m.read(name, place(m)[active], n, active)
        words = values.view((U8, U16, None, U32)[min(n, 4) - 1])
        for k in range(words.shape[1]):
            if where is not None:
                m.R[where[1] + k][active] = words[:, k]
        counted = m.in_flight is not None and name in ("LDG", "LD") and active.size and active[0] == 0
        if counted and m.memory.latest != "alpha":  # the few slopes stay in the cache
            m.in_flight.issue(where[1], n)

    return run


@opcode("STG", "ST", "STS", "STL", named=True)
def store(mods, args, name):
    n, where = access_size(mods), register(args[1])
    place = address(args[0], name in ("STG", "ST"))

    def run(m, mask):
        active = m.active(mask)
        words = np.zeros((active.size, max(1, n // 4)), U32)
        if where is not None:
            for k in range(words.shape[1]):
                words[:, k] = m.R[where[1] + k][active]
        m.write(name, place(m)[active], np.ascontiguousarray(words.view(U8)[:, :n]), active)

    return run
