# What setup.py writes into leaky_ext/_build.py when it has built the native module.
VERSION: str
TORCH: str
WITH_CUDA: bool
WHY: str  # why the CUDA kernels were built, or not
