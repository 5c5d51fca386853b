"""Triton kernels of inference on a GPU, one file each, beside the plain torch line that says the same.

Activations are channels-last and contiguous, (B, H, W, C), of whatever float type; sums are float32. Sizes are
arguments, not constants, so that a new picture size compiles nothing.
"""
