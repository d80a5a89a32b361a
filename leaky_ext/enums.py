"""The values of the operators' arguments `formula` and `kind`: `Formula` and `Saved` in csrc/kernels.h."""

from collections.abc import Iterable

FORMULAS = LEAKY_RELU, LEAKY_RELU_SIGNED, RELU = range(3)
"""Values of `formula`. LEAKY_RELU_SIGNED writes +0.0 for -0.0, so that y has the sign of x if slopes are positive."""

KINDS = INPUT, OUTPUT, OUTPUT_AND_MASK, MASK, INPUT_OF_RELU, INPUT_OF_LEAKY_RELU = range(6)
"""Values of `kind` of backward. The last two also mean INPUT; csrc/operators.h says how compilers use them."""

KINDS_OF_INPUT = (INPUT, INPUT_OF_RELU, INPUT_OF_LEAKY_RELU)


def one_of(values: Iterable[object]) -> str:
    """Return the values as text for a message: "0, 1 or 2"."""
    *first, last = map(str, values)
    return f"{', '.join(first)} or {last}"
