"""Kernels: chains of elementwise functions and totals as one loop, and its text for numba and for CUDA."""
