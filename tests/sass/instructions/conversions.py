"""Conversions between number types."""

import re

import numpy as np
from arithmetic import bfloat16_bits, bfloat16_bits_of_float64, directed, float32_of_uint64, saturated
from numpy_types import F16, F32, F64, S32, U16, U32
from operands import float32, float64, integer, raw, to_float32, to_pair, to_register

from .registry import needs, opcode


@opcode("F2F")
def float64_conversion(mods, args):
    to, origin = mods[:2]
    if (to, origin) == ("F32", "F64"):
        value, write = float64(args[1]), to_float32(args[0])
        return lambda m, mask: write(m, value(m).astype(F32), mask)
    if (to, origin) == ("F64", "F32"):
        value, write = float32(args[1]), to_pair(args[0])
        return lambda m, mask: write(m, np.atleast_1d(value(m).astype(F64)), mask)
    value, write = float64(args[1]), to_register(args[0])
    needs(origin == "F64" and to in ("F16", "BF16"), ".".join(mods))
    if to == "F16":
        return lambda m, mask: write(m, np.atleast_1d(value(m)).astype(F16).view(U16), mask)
    return lambda m, mask: write(m, bfloat16_bits_of_float64(value(m)), mask)


@opcode("F2FP")
def packed_halves(mods, args):
    needs(mods in (["BF16", "F32", "PACK_AB"], ["BF16", "PACK_AB"], ["F16", "F32", "PACK_AB"], ["PACK_AB"]))
    write, high, low = to_register(args[0]), float32(args[1]), float32(args[2])

    def bits(value):
        if mods[0] == "BF16":
            return bfloat16_bits(np.asarray(value, F32).view(U32))
        return np.atleast_1d(value).astype(F16).view(U16).astype(U32)

    return lambda m, mask: write(m, (bits(high(m)) << U32(16)) | bits(low(m)), mask)


@opcode("HADD2")
def float16_to_float32(mods, args):
    match = re.match(r"^(\w+)\.(H[01])_\2$", args[2])
    needs(mods == ["F32"] and args[1] == "-RZ" and match, "HADD2 other than a conversion")
    write, bits, high = to_float32(args[0]), raw(match[1]), match[2] == "H1"

    def run(m, mask):
        v = (bits(m) >> U32(16 if high else 0)) & U32(0xFFFF)
        write(m, np.asarray(v.astype(U16)).view(F16).astype(F32), mask)

    return run


@opcode("HFMA2")
def float16_constants(mods, args):
    needs(mods in ([], ["MMA"]) and args[1:3] == ["-RZ", "RZ"], "HFMA2 other than a constant")
    high, low = (int(F16(float(x)).view(U16)) for x in args[3:5])
    write, value = to_register(args[0]), U32(high << 16 | low)
    return lambda m, mask: write(m, value, mask)


@opcode("I2F", "I2FP")
def integer_to_float32(mods, args):
    kind = next((x for x in mods if re.match(r"^[US]\d+$", x)), "S32")
    needs(kind in ("U32", "S32", "U64", "U16", "U8") and "F64" not in mods and "F16" not in mods, ".".join(mods))
    write, value = to_float32(args[0]), integer(args[1], 8 if kind == "U64" else 4)

    def run(m, mask):
        v = value(m)
        if kind == "U64":
            return write(m, float32_of_uint64(v, mods), mask)
        v = v.astype(S32) if kind == "S32" else v & U32(2 ** int(kind[1:]) - 1)
        exact = np.atleast_1d(v.astype(F64))
        write(m, directed(exact.astype(F32), exact, mods), mask)
        return None

    return run


@opcode("F2I")
def float32_to_integer(mods, args):
    needs("TRUNC" in mods and "F64" not in mods and ("U32" in mods or "U64" in mods), ".".join(mods))
    bits = 64 if "U64" in mods else 32
    write, value = (to_pair if bits == 64 else to_register)(args[0]), float32(args[1])
    return lambda m, mask: write(m, saturated(value(m), bits), mask)
