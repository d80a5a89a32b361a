"""Integer arithmetic, shifts and bitwise logic."""

import numpy as np
from numpy_types import S32, S64, U32, U64
from operands import addend, integer, predicate, split_predicates, to_pair, to_predicate, to_register

from .registry import needs, opcode


@opcode("IADD3", "UIADD3")
def add3(mods, args):
    write = to_register(args[0])
    carries, rest = split_predicates(args[1:])
    terms, carry_in = [addend(x) for x in rest[:3]], [predicate(x) for x in rest[3:]]
    needs(len(terms) == 3 and ("X" in mods) == bool(carry_in))
    outs = [to_predicate(x) for x in carries]

    def run(m, mask):
        total = sum((f(m).astype(U64) for f in terms + carry_in), U64(0))
        write(m, total & U64(0xFFFFFFFF), mask)
        for k, out in enumerate(outs):
            out(m, (total >> U64(32)) > k, mask)

    return run


@opcode("IADD", "VIADD", "UVIADD")
def add(mods, args):
    needs(not mods)
    write, a, b = to_register(args[0]), integer(args[1]), integer(args[2])
    return lambda m, mask: write(m, a(m) + b(m), mask)


@opcode("IMAD", "UIMAD")
def multiply_add(mods, args):
    carries, rest = split_predicates(args[1:])
    carry_out = to_predicate(carries[0]) if carries else None
    a, b = integer(rest[0]), integer(rest[1])
    if mods[:1] in (["WIDE"], ["HI"]):
        c = integer(rest[2], 8)
        signed, high = "U32" not in mods, mods[0] == "HI"
        needs(len(rest) == 3 and not (signed and (high or carry_out)))
        write = (to_register if high else to_pair)(args[0])

        def run(m, mask):
            x, y = a(m), b(m)
            if signed:
                x, y = x.astype(S32).astype(S64), y.astype(S32).astype(S64)
            else:
                x, y = x.astype(U64), y.astype(U64)
            product = (x * y).astype(U64)
            total = product + c(m)
            write(m, total >> U64(32) if high else total, mask)
            if carry_out:
                carry_out(m, total < product, mask)

        return run
    needs(mods in ([], ["X"], ["MOV"], ["MOV", "U32"], ["IADD"], ["SHL"], ["SHL", "U32"], ["U32"]) and not carry_out)
    write, c = to_register(args[0]), integer(rest[2])
    if rest[:2] == ["RZ", "RZ"] and mods != ["X"]:
        return lambda m, mask: write(m, c(m), mask)
    if mods == ["X"]:
        carry_in = predicate(rest[3])
        return lambda m, mask: write(m, a(m) * b(m) + c(m) + carry_in(m).astype(U32), mask)
    return lambda m, mask: write(m, a(m) * b(m) + c(m), mask)


@opcode("LEA", "ULEA")
def shifted_add(mods, args):
    carries, rest = split_predicates(args[1:])
    write, outs = to_register(args[0]), [to_predicate(x) for x in carries]
    carry_in = predicate(rest.pop()) if "X" in mods else None
    shift = U64(int(rest.pop(), 16))
    a, b = integer(rest[0]), integer(rest[1])
    extended, high = "SX32" in mods, "HI" in mods
    c = integer(rest[2]) if high and not extended else None

    def run(m, mask):
        x = a(m)
        if high:
            top = (x.astype(S32) >> S32(31)).astype(U32) if extended else c(m)
            x = (((top.astype(U64) << U64(32)) | x.astype(U64)) << shift) >> U64(32)
        else:
            x = (x.astype(U64) << shift) & U64(0xFFFFFFFF)
        total = x + b(m).astype(U64)
        if carry_in:
            total = total + carry_in(m).astype(U64)
        write(m, total & U64(0xFFFFFFFF), mask)
        for out in outs:
            out(m, (total >> U64(32)) > 0, mask)

    return run


@opcode("SHF", "USHF")
def shift(mods, args):
    write, low, amount, high = to_register(args[0]), *map(integer, args[1:4])
    left, kind, wrap, upper = mods[0] == "L", mods[1], "W" in mods, "HI" in mods
    needs(kind in ("U32", "S32", "U64", "S64"))
    limit = 32 if kind.endswith("32") else 63

    def run(m, mask):
        value = (high(m).astype(U64) << U64(32)) | low(m).astype(U64)
        n = amount(m).astype(U64)
        n = n & U64(31 if limit == 32 else 63) if wrap else np.minimum(n, U64(limit))
        if left:
            value = value << n
        else:
            value = (value.astype(S64) >> n.astype(S64)).astype(U64) if kind[0] == "S" else value >> n
        write(m, value >> U64(32) if upper else value & U64(0xFFFFFFFF), mask)

    return run


@opcode("LOP3", "ULOP3")
def logic3(mods, args):
    predicates, rest = split_predicates(args)
    write, outs = to_register(rest[0]), [to_predicate(x) for x in predicates]
    a, b, c = map(integer, rest[1:4])
    table, also = int(rest[4], 16), predicate(rest[5])

    def run(m, mask):
        x, y, z = a(m), b(m), c(m)
        # Bit 4x + 2y + z of the table is the result. The three most frequent tables are written out, which is faster.
        if table == 0xC0:
            value = x & y
        elif table == 0xFC:
            value = x | y
        elif table == 0x3C:
            value = x ^ y
        else:
            value = U32(0)
            for i in range(8):
                if table >> i & 1:
                    value = value | ((x if i & 4 else ~x) & (y if i & 2 else ~y) & (z if i & 1 else ~z))
        write(m, value, mask)
        for out in outs:
            out(m, (value != 0) | also(m), mask)

    return run


@opcode("PRMT", "UPRMT")
def permute(mods, args):
    needs(not mods)
    write, a, selector, b = to_register(args[0]), *map(integer, args[1:4])

    def run(m, mask):
        both = (b(m).astype(U64) << U64(32)) | a(m).astype(U64)
        choice, value = selector(m), U32(0)
        for k in range(4):
            nibble = (choice >> U32(4 * k)) & U32(15)
            byte = (both >> ((nibble & U32(7)).astype(U64) * U64(8))) & U64(255)
            sign = np.where(byte >> U64(7), U64(255), U64(0))
            value = value | (np.where(nibble & U32(8), sign, byte).astype(U32) << U32(8 * k))
        write(m, value, mask)

    return run


@opcode("IMNMX", "VIMNMX", "VIMNMX3", "VIADDMNMX", named=True)
def minimum_or_maximum(mods, args, name):
    write, least = to_register(args[0]), predicate(args[-1])
    _, rest = split_predicates(args[1:-1])
    values = [integer(x) for x in rest]
    kind = U32 if "U32" in mods else S32
    needs(set(mods) <= {"U32", "S32"})

    def run(m, mask):
        v = [f(m) for f in values]
        if name == "VIADDMNMX":
            v = [v[0] + v[1], *v[2:]]
        v = [x.astype(kind) for x in v]
        low, high = v[0], v[0]
        for x in v[1:]:
            low, high = np.minimum(low, x), np.maximum(high, x)
        write(m, np.where(least(m), low, high).astype(U32), mask)

    return run


@opcode("IABS")
def absolute(mods, args):
    write, a = to_register(args[0]), integer(args[1])
    return lambda m, mask: write(m, np.abs(a(m).astype(S32)).astype(U32), mask)
