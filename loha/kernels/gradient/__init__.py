"""The gradient of the merge with respect to its factors: `gradients` chooses, `triton` is the CUDA kernel."""
