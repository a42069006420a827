"""Readers of trajectory files: they return the complete frames and state what could not be read."""
