"""Moves between registers and from constant memory, selection, and instructions without an effect here."""

import numpy as np
from numpy_types import U32, U64
from operands import (
    CONSTANT,
    float32_bits,
    integer,
    predicate,
    put,
    raw,
    register,
    split_predicates,
    to_pair,
    to_register,
)

from .memory_access import access_size
from .registry import needs, opcode


@opcode("MOV", "UMOV", "R2UR")
def move(mods, args):
    _, args = split_predicates(args)
    write, value = to_register(args[0]), integer(args[1])
    return lambda m, mask: write(m, value(m), mask)


@opcode("CS2R")
def zero(mods, args):
    needs(args[1] == "SRZ", args[1])
    write = to_register(args[0]) if "32" in mods else to_pair(args[0])
    return lambda m, mask: write(m, U64(0), mask)


@opcode("S2R", "S2UR")
def special_register(mods, args):
    write, name = to_register(args[0]), args[1]
    return lambda m, mask: write(m, m.special(name), mask)


@opcode("LDC", "ULDC", "LDCU")
def load_constant(mods, args):
    n = access_size(mods)
    needs(not {"S8", "S16"} & set(mods))
    match = CONSTANT.match(args[1])
    if n < 4 or n == 16:
        needs(match and match[1] == "0x0" and match[2].startswith("0x"), args[1])
        at, (file, k) = int(match[2], 16), register(args[0])

        def run(m, mask):
            rows, value = m.R if file == "R" else m.U, m.constant_bytes(at, n)
            for j in range(0, n, 4):
                put(rows[k + j // 4], U32(int.from_bytes(value[j : j + 4], "little")), mask)

        return run
    value, write = raw(args[1], n), (to_register if n == 4 else to_pair)(args[0])
    return lambda m, mask: write(m, value(m), mask)


@opcode("SEL", "USEL", "FSEL", named=True)
def select(mods, args, name):
    bits = float32_bits if name == "FSEL" else integer
    write, a, b, which = to_register(args[0]), bits(args[1]), bits(args[2]), predicate(args[3])
    return lambda m, mask: write(m, np.where(which(m), a(m), b(m)), mask)


@opcode("NOP", "YIELD", "DEPBAR", "LDGDEPBAR", "MEMBAR", "ERRBAR", "CCTL", "BSSY", "BREAK", "NANOSLEEP")
def nothing(mods, args):
    return lambda m, mask: None
