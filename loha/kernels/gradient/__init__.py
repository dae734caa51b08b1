"""The gradient of the merge with respect to its factors.

`gradients` chooses; on CUDA `triton` is the kernel for one module, `many_modules` that for a network's.
"""
