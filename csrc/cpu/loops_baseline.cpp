// The loops for the default target of the compiler, which every machine supports.
#define LEAKY_INSTRUCTION_SET baseline
#define LEAKY_VECTOR_BYTES 16
#include "loops.inc"
