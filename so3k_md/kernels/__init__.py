"""Compiled kernels for CPUs, and the parts of a model that call them."""
