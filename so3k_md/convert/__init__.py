"""Weights of other programs, read as data: none of their code runs, and none of it remains."""
