"""Kernels: chains of elementwise functions and totals as one loop, and its text for numba and for CUDA.

`kernel.py` describes one, `fusion.py` decides which operations go into it, and `passes.py` in which pass
through a row each of them is done. `python.py` writes its text for numba, `c.py` for CUDA. The text of one
element of each function, of `tanh` say, is in `xpnet/replay/functions.py`.
"""
