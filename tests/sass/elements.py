"""Element types: sizes, special values, and conversions between bytes and NumPy's numbers."""

import math

import numpy as np

SIZE = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}  # bytes
BITS = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}  # of the significand
NUMPY = {"float64": "<f8", "float32": "<f4", "float16": "<f2"}
SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan]
EXTREME = {
    "float64": [5e-324, -5e-324, 1.7e308, -1.7e308],
    "float32": [1e-45, -1e-45, 3.4e38, -3.4e38, -1.5e-38],
    "float16": [6e-8, -6e-8, 65504.0, -65504.0, -6.2e-5],
    "bfloat16": [9.2e-41, -9.2e-41, 3.38e38, -3.38e38, -1.2e-38],
}


def encode(values, dtype):
    """Returns the bytes of the values, rounded to nearest even."""
    if dtype == "bfloat16":
        values = np.asarray(values, np.float32)
        bits = values.view(np.uint32)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return np.where(np.isnan(values), 0x7FC0, rounded).astype("<u2").tobytes()
    with np.errstate(over="ignore"):
        return np.asarray(values).astype(NUMPY[dtype]).tobytes()


def decode(data, dtype):
    """Returns the elements as float64."""
    if dtype == "bfloat16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return np.frombuffer(data, NUMPY[dtype]).astype(np.float64)


def rounded(values, dtype):
    return decode(encode(values, dtype), dtype)


def compute_type(dtype):
    """Returns the type in which the kernels compute each element."""
    return np.float64 if dtype == "float64" else np.float32
