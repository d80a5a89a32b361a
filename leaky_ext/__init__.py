"""Leaky ReLU with a learnable slope, and straight-through ReLU, as C++ and CUDA kernels for PyTorch."""
