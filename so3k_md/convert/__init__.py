"""Converts models of other programs. Their files are read as data, so that none of their code runs."""
