"""Arithmetic that NumPy lacks: rounding modes, fused multiply-add, bfloat16, saturating conversions."""

import ctypes

import numpy as np
from numpy_types import F32, F64, U32, U64


def directed(rounded, exact, mode):
    """Applies a rounding mode: RM (down), RP (up), RZ (toward zero), or none of these in `mode` (to nearest).

    `rounded` is the result, rounded to nearest. `exact` has a wider type. It is greater or less than `rounded` if the
    exact result is.
    """
    wide = rounded.astype(exact.dtype)
    if "RM" in mode:
        return np.where(wide > exact, np.nextafter(rounded, rounded.dtype.type(-np.inf)), rounded)
    if "RP" in mode:
        return np.where(wide < exact, np.nextafter(rounded, rounded.dtype.type(np.inf)), rounded)
    if "RZ" in mode:
        return np.where(np.abs(wide) > np.abs(exact), np.nextafter(rounded, rounded.dtype.type(0)), rounded)
    return rounded


def flush(value):
    """Replaces subnormal float32 numbers by zeros of the same sign."""
    return np.where(np.abs(value) < F32(2.0**-126), np.copysign(F32(0), value), value)


def fma32(a, b, c, mode):
    """Returns a * b + c in float32, rounded once.

    The product is exact in float64. The sum is rounded to odd in float64. Rounding that to float32 gives the same
    result as rounding the exact sum once.
    """
    product, c = np.atleast_1d(F64(a) * F64(b)), F64(c)
    total = product + c
    part = total - product
    rest = (product - (total - part)) + (c - part)
    bits = total.view(U64)
    even = (rest != 0) & np.isfinite(total) & np.isfinite(rest) & (bits & U64(1) == 0)
    step = np.where((rest > 0) == (total > 0), U64(1), U64(2**64 - 1))
    exact = np.where(even, bits + step, bits).view(F64)
    return directed(exact.astype(F32), exact, mode)


def _load_fma():
    function = ctypes.CDLL("libm.so.6").fma
    function.restype, function.argtypes = ctypes.c_double, [ctypes.c_double] * 3
    return np.frompyfunc(function, 3, 1)


_fma = _load_fma()


def fma64(a, b, c):
    return np.atleast_1d(np.asarray(_fma(a, b, c), dtype=F64))


def mul64(a, b, mode):
    """Returns a * b in float64, rounded as RP or RM in `mode` asks, else to nearest."""
    product = np.atleast_1d(a * b)
    rest = fma64(a, b, -product)
    if "RP" in mode:
        return np.where(rest > 0, np.nextafter(product, np.inf), product)
    if "RM" in mode:
        return np.where(rest < 0, np.nextafter(product, -np.inf), product)
    return product


def bfloat16_bits(float32_bits):
    """Returns the bits of bfloat16 numbers, rounded to nearest even. NaN becomes 0x7FFF."""
    rounded = (float32_bits + U32(0x7FFF) + ((float32_bits >> U32(16)) & U32(1))) >> U32(16)
    return np.where((float32_bits & U32(0x7FFFFFFF)) > U32(0x7F800000), U32(0x7FFF), rounded)


def bfloat16_bits_of_float64(value):
    """Returns the bits of bfloat16 numbers. Rounds to odd in float32 first, which avoids double rounding."""
    value = np.atleast_1d(value)
    single = value.astype(F32)
    bits = single.view(U32)
    too_large = np.abs(single.astype(F64)) > np.abs(value)
    odd = np.where(single.astype(F64) != value, (bits - too_large) | U32(1), bits)
    return bfloat16_bits(np.where(np.isfinite(single), odd, bits).astype(U32))


def float32_of_uint64(value, mode):
    """Converts uint64 to float32, rounded once.

    From 2**52 on, the 12 lowest bits are removed before the conversion to float64. If any of them is set, the lowest
    remaining bit is set (a sticky bit), so that float32 is rounded correctly.
    """
    sticky = (value >> U64(12)) | ((value & U64(0xFFF)) != 0).astype(U64)
    exact = np.atleast_1d(np.where(value < U64(2**52), value.astype(F64), sticky.astype(F64) * 4096.0))
    return directed(exact.astype(F32), exact, mode)


def saturated(value, bits):
    """Converts floating-point numbers to unsigned integers of this many bits, toward zero. NaN gives 0."""
    value = np.trunc(np.atleast_1d(F64(value)))
    top = 2.0**bits
    inside = np.where((value > 0) & (value < top), value, 0).astype(U64)
    return np.where(value >= top, U64(2**bits - 1), inside)
