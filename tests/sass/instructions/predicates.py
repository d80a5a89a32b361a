"""Comparisons, and logic on predicates."""

import re

import numpy as np
from arithmetic import flush
from numpy_types import F32, F64, S32, U32
from operands import floating, integer, predicate, put, raw, to_predicate, to_register

from .registry import needs, opcode

COMPARE = {
    "GE": np.greater_equal,
    "GT": np.greater,
    "LE": np.less_equal,
    "LT": np.less,
    "EQ": np.equal,
    "NE": lambda a, b: (a < b) | (a > b),
}


def compare(name, a, b):
    unordered = (a != a) | (b != b)
    if name == "NAN":
        return unordered
    if name == "NUM":
        return ~unordered
    result = COMPARE[name[:2]](a, b)
    return result | unordered if name.endswith("U") else result


def combine(mods, result, other):
    if "AND" in mods:
        return result & other
    return result | other if "OR" in mods else result ^ other


@opcode("ISETP", "UISETP")
def compare_integers(mods, args):
    outs, a, b, other = [to_predicate(x) for x in args[:2]], integer(args[2]), integer(args[3]), predicate(args[4])
    kind, name = (U32 if "U32" in mods else S32), mods[0]
    low = predicate(args[5]) if "EX" in mods else None  # EX: compares high words; args[5] compared the low words

    def run(m, mask):
        x, y = a(m).astype(kind), b(m).astype(kind)
        if low is None:
            result = compare(name, x, y)
        elif name == "NE":
            result = (x != y) | low(m)
        elif name == "EQ":
            result = (x == y) & low(m)
        else:
            result = compare(name[0] + "T", x, y) | ((x == y) & low(m))
        outs[0](m, combine(mods, result, other(m)), mask)
        outs[1](m, combine(mods, ~result, other(m)), mask)

    return run


@opcode("FSETP", "DSETP", named=True)
def compare_floating(mods, args, name):
    kind = F64 if name == "DSETP" else F32
    outs, other = [to_predicate(x) for x in args[:2]], predicate(args[4])
    a, b = floating(args[2], kind), floating(args[3], kind)

    def run(m, mask):
        x, y = a(m), b(m)
        if "FTZ" in mods:
            x, y = flush(x), flush(y)
        result = compare(mods[0], x, y)
        outs[0](m, combine(mods, result, other(m)), mask)
        outs[1](m, combine(mods, ~result, other(m)), mask)

    return run


@opcode("PLOP3", "UPLOP3")
def predicate_logic3(mods, args):
    a, b, c = map(predicate, args[2:5])
    tables = [np.array([int(x, 16) >> i & 1 for i in range(8)], bool) for x in args[5:7]]
    outs = [to_predicate(x) for x in args[:2]]

    def run(m, mask):
        index = a(m) * 4 + b(m) * 2 + c(m) * 1
        for out, table in zip(outs, tables, strict=False):
            out(m, table[index], mask)

    return run


@opcode("P2R", "UP2UR", named=True)
def predicates_to_register(mods, args, name):
    needs(not mods)
    write, kept, chosen = to_register(args[0]), integer(args[2]), integer(args[3])

    def run(m, mask):
        rows = m.UP if name == "UP2UR" else m.P
        bits = sum(rows[k].astype(U32) << U32(k) for k in range(7))
        write(m, (kept(m) & ~chosen(m)) | (bits & chosen(m)), mask)

    return run


@opcode("R2P")
def register_to_predicates(mods, args):
    byte = re.search(r"\.B(\d)$", args[1])
    value, chosen = raw(args[1].split(".")[0]), int(args[2], 16)

    def run(m, mask):
        bits = value(m) >> U32(8 * int(byte[1]) if byte else 0)
        for k in range(7):
            if chosen >> k & 1:
                put(m.P[k], (bits >> U32(k)) & U32(1) != 0, mask)

    return run
