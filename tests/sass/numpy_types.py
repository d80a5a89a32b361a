"""Short names of NumPy's types."""

import numpy as np

U8, U16, U32, U64 = np.uint8, np.uint16, np.uint32, np.uint64
S32, S64 = np.int32, np.int64
F16, F32, F64 = np.float16, np.float32, np.float64
