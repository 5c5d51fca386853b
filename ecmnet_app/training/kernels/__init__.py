"""Triton kernels of a training step on a GPU, one file each, beside the plain torch line that says the same."""
