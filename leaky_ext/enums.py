"""The numbers by which Python names a formula and what was saved: `Formula` and `Saved` of csrc/kernels.h."""

LEAKY_RELU, LEAKY_RELU_SIGNED, RELU = range(3)
"""`formula` of the forward operators. The second writes +0.0 for -0.0, so that the sign of y is that of x."""

INPUT, OUTPUT, OUTPUT_AND_MASK, MASK, INPUT_OF_RELU, INPUT_OF_LEAKY_RELU = range(6)
"""`kind` of the operator backward. The last two are INPUT too, and name the forward for compilers: csrc/operators.h."""

KINDS_OF_INPUT = (INPUT, INPUT_OF_RELU, INPUT_OF_LEAKY_RELU)
