"""Operands of instructions: from their text to functions that read or write them on a machine.

A value has one element per thread, or is a scalar. `mask` selects the threads that write; None selects all.
"""

import re

import numpy as np
from errors import Unsupported
from numpy_types import F32, F64, S32, U32, U64

ZERO_REGISTERS = ("RZ", "URZ", "SRZ")
REGISTER = re.compile(r"^(UR|R)(\d+)$")
PREDICATE = re.compile(r"^!?U?P(T|\d)$")
CONSTANT = re.compile(r"^c\[(\w+)\]\[(.*)\]$")


def register(text):
    """Returns the register file ("R", or "U" for uniform registers) and the number; None for a zero register."""
    if text in ZERO_REGISTERS:
        return None
    match = REGISTER.match(text.split(".")[0])
    if not match:
        raise Unsupported(f"operand {text}")
    return match[1][0], int(match[2])


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def raw(text, n=4):
    """Reads n bytes (4 or 8) of a register or of constant memory, as an unsigned integer."""
    if match := CONSTANT.match(text):
        return constant(match[1], match[2], n)
    where = register(text)
    kind = U32 if n == 4 else U64
    if where is None:
        return lambda m: kind(0)
    file, k = where
    if n == 4:
        return (lambda m: m.R[k]) if file == "R" else (lambda m: m.U[k])
    if file == "R":
        return lambda m: m.R[k].astype(U64) | (m.R[k + 1].astype(U64) << U64(32))
    return lambda m: m.U[k].astype(U64) | (m.U[k + 1].astype(U64) << U64(32))


def constant(bank, offset, n):
    """Reads n bytes of c[bank][offset]. In bank 0, registers can be part of the offset."""
    if bank == "0x2" and re.fullmatch(r"0x[0-9a-f]+", offset):
        at = int(offset, 16)
        return lambda m: m.compiler_constant(at, n)
    if bank != "0x0":
        raise Unsupported(f"constant bank {bank}")
    fixed, indices = 0, []
    for part in offset.split("+"):
        if part.startswith("0x"):
            fixed += int(part, 16)
        else:
            indices.append(raw(part))
    if not indices:
        return lambda m: m.constant(fixed, n)
    return lambda m: m.indexed_constant(sum(f(m) for f in indices) + U32(fixed), n)


def is_location(text):
    """Returns whether the operand is a register or a constant in memory, not a number in the instruction."""
    text = text.lstrip("-~|")
    name = text.split(".")[0].strip("|")
    return text.startswith("c[") or name in ZERO_REGISTERS or bool(REGISTER.match(name))


def integer(text, n=4):
    """Reads an unsigned integer of n bytes, negated (-), inverted (~) or absolute (|...|) if the text asks for it."""
    kind = U32 if n == 4 else U64
    if text[0] == "~":
        inner = integer(text[1:], n)
        return lambda m: ~inner(m)
    if text[0] == "|":
        inner = integer(text.strip("|"), n)
        return lambda m: np.abs(inner(m).astype(S32)).astype(U32)
    if text[0] == "-" and is_location(text):
        inner = integer(text[1:], n)
        return lambda m: kind(0) - inner(m)
    if is_location(text):
        return raw(text, n)
    try:
        value = kind(int(text, 0) % (1 << 8 * n))
    except ValueError:
        raise Unsupported(f"operand {text}") from None
    return lambda m: value


def addend(text):
    """Reads an operand of an addition with carry, in 33 bits: -x is ~x + 1."""
    if text[0] == "-" and is_location(text):
        inner = integer(text[1:])
        return lambda m: (~inner(m)).astype(U64) + U64(1)
    inner = integer(text)
    return lambda m: inner(m).astype(U64)


def number(text):
    """Returns a floating-point number that is written in the instruction."""
    text = text.strip()
    if text.startswith("0x"):
        return U32(int(text, 16)).view(F32)
    if "INF" in text:
        return F64(-np.inf if text[0] == "-" else np.inf)
    if "NAN" in text:
        return F64(np.nan)
    return F64(text)


def floating(text, kind):
    """Reads a floating-point number of type `kind`, negated (-) or absolute (|...|) if the text asks for it."""
    text = text.strip()
    if not is_location(text):
        try:
            value = kind(number(text))
        except ValueError:
            raise Unsupported(f"operand {text}") from None
        return lambda m: value
    negative, text = text[0] == "-", text.lstrip("-")
    absolute, text = text[0] == "|", text.strip("|")
    bits = raw(text, kind().itemsize)

    def value(m):
        v = bits(m).view(kind)
        v = np.abs(v) if absolute else v
        return -v if negative else v

    return value


def float32(text):
    return floating(text, F32)


def float64(text):
    return floating(text, F64)


def float32_bits(text):
    inner = float32(text)
    return lambda m: inner(m).view(U32)


def predicate(text):
    inverted, text = text[0] == "!", text.lstrip("!")
    if not PREDICATE.match(text):
        raise Unsupported(f"predicate {text}")
    if text[-1] == "T":
        return lambda m: np.bool_(not inverted)
    uniform, k = text[0] == "U", int(text[-1])
    if inverted:
        return (lambda m: ~m.UP[k]) if uniform else (lambda m: ~m.P[k])
    return (lambda m: m.UP[k]) if uniform else (lambda m: m.P[k])


def split_predicates(args):
    """Returns the leading predicates, and the other arguments."""
    k = 0
    while k < len(args) and PREDICATE.match(args[k]):
        k += 1
    return args[:k], args[k:]


ADDRESS_PART = re.compile(r"^(UR|R)(\d+|Z)((?:\.64|\.U32|\.X\d+)*)$")


def address(text, wide):
    """Computes the address in [...], in 64 bits if `wide`, else in 32."""
    inside = re.search(r"\[([^\[\]]*)\]$", text)
    if not inside:
        raise Unsupported(f"address {text}")
    kind = U64 if wide else U32
    fixed, parts = 0, []
    for part in re.sub(r"(?<=[\dZ4])-0x", "+-0x", inside[1]).split("+"):
        if part.lstrip("-").startswith("0x"):
            fixed += int(part, 16)
            continue
        match = ADDRESS_PART.match(part)
        if not match:
            raise Unsupported(f"address {text}")
        name, suffix = match[1] + match[2], match[3]
        n = 8 if ".64" in suffix or (wide and match[1] == "UR") else 4
        scale = re.search(r"\.X(\d+)", suffix)
        parts.append((raw(name, n), kind(int(scale[1]) if scale else 1)))
    fixed = kind(fixed % (1 << (64 if wide else 32)))
    return lambda m: m.spread(sum((f(m).astype(kind) * k for f, k in parts), fixed), kind)


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def put(row, value, mask):
    if mask is None:
        row[:] = value
    else:
        np.copyto(row, value, where=mask, casting="unsafe")


def to_register(text):
    where = register(text)
    if where is None:
        return lambda m, value, mask: None
    file, k = where
    return lambda m, value, mask: put((m.R if file == "R" else m.U)[k], value, mask)


def to_pair(text):
    """Writes 64 bits to a register and the next one."""
    where = register(text)
    if where is None:
        return lambda m, value, mask: None
    file, k = where

    def write(m, value, mask):
        rows = m.R if file == "R" else m.U
        value = np.asarray(value)
        value = value.view(U64) if value.dtype == F64 else value
        put(rows[k], value & U64(0xFFFFFFFF), mask)
        put(rows[k + 1], value >> U64(32), mask)

    return write


def to_float32(text):
    write = to_register(text)
    return lambda m, value, mask: write(m, np.asarray(value, F32).view(U32), mask)


def to_predicate(text):
    if text in ("PT", "UPT"):
        return lambda m, value, mask: None
    uniform, k = text[0] == "U", int(text[-1])
    return lambda m, value, mask: put((m.UP if uniform else m.P)[k], value, mask)
