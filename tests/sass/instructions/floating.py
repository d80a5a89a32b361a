"""Floating-point arithmetic."""

import numpy as np
from arithmetic import directed, flush, fma32, fma64, mul64
from numpy_types import F32, F64, S32, U32, U64
from operands import float32, float32_bits, float64, integer, to_float32, to_pair, to_predicate, to_register

from .registry import needs, opcode


@opcode("FADD", "FMUL", "FFMA", named=True)
def float32_arithmetic(mods, args, name):
    needs(set(mods) <= {"FTZ", "RM", "RP", "RZ", "RN"}, ".".join([name, *mods]))
    write, v = to_float32(args[0]), [float32(x) for x in args[1:]]
    ftz = "FTZ" in mods
    rounding = [x for x in mods if x in ("RM", "RP", "RZ")]

    def run(m, mask):
        x = [flush(f(m)) if ftz else f(m) for f in v]
        if name == "FFMA":
            result = fma32(*x, rounding)
        elif rounding:
            exact = np.atleast_1d(x[0].astype(F64) * x[1] if name == "FMUL" else x[0].astype(F64) + x[1])
            result = directed(exact.astype(F32), exact, rounding)
        else:
            result = x[0] * x[1] if name == "FMUL" else x[0] + x[1]
        write(m, flush(result) if ftz else result, mask)

    return run


@opcode("DADD", "DMUL", "DFMA", named=True)
def float64_arithmetic(mods, args, name):
    needs(set(mods) <= {"RM", "RP"} and not (mods and name != "DMUL"), ".".join([name, *mods]))
    write, v = to_pair(args[0]), [float64(x) for x in args[1:]]

    def run(m, mask):
        x = [f(m) for f in v]
        if name == "DADD":
            return write(m, np.atleast_1d(x[0] + x[1]), mask)
        if name == "DMUL" and not mods:
            return write(m, np.atleast_1d(x[0] * x[1]), mask)
        active = m.active(mask)  # fma64 is slow: compute it for these threads only
        x = [m.spread(y, F64)[active] for y in x]
        result = np.zeros(m.threads, F64)
        result[active] = fma64(*x) if name == "DFMA" else mul64(*x, mods)
        write(m, result, mask)
        return None

    return run


@opcode("MUFU")
def special_function(mods, args):
    needs(mods in (["RCP"], ["RCP64H"], ["RSQ"]), "MUFU." + ".".join(mods))
    write = to_register(args[0])
    if mods == ["RCP64H"]:
        high = integer(args[1])

        def run(m, mask):
            inverse = np.atleast_1d(1.0 / (high(m).astype(U64) << U64(32)).view(F64))
            write(m, inverse.view(U64) >> U64(32), mask)

        return run
    value = float32(args[1])
    if mods == ["RCP"]:
        return lambda m, mask: write(m, np.asarray(F32(1) / value(m)).view(U32), mask)
    return lambda m, mask: write(m, np.asarray(F32(1) / np.sqrt(value(m))).view(U32), mask)


@opcode("FCHK")
def check_division(mods, args):
    out, a, b = to_predicate(args[0]), float32_bits(args[1]), float32_bits(args[2])

    def run(m, mask):
        x, y = [((bits(m) >> U32(23)) & U32(255)).astype(S32) for bits in (a, b)]
        slow = (y == 0) | (y >= 253) | (x == 255) | (np.abs(x - y) >= 126) | (x <= 24)
        out(m, slow, mask)

    return run
