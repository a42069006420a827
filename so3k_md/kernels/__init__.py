"""Compiled kernels for CPUs, and the model that calls them."""
