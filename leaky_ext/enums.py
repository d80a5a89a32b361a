"""The values of the operators' arguments `formula` and `kind`: `Formula` and `Saved` in csrc/kernels.h."""

LEAKY_RELU, LEAKY_RELU_SIGNED, RELU = range(3)
"""Values of `formula`. LEAKY_RELU_SIGNED writes +0.0 for -0.0, so that y has the sign of x if slopes are positive."""

INPUT, OUTPUT, OUTPUT_AND_MASK, MASK, INPUT_OF_RELU, INPUT_OF_LEAKY_RELU = range(6)
"""Values of `kind` of backward. The last two also mean INPUT; csrc/operators.h says how compilers use them."""

KINDS_OF_INPUT = (INPUT, INPUT_OF_RELU, INPUT_OF_LEAKY_RELU)
