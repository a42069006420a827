"""Writes and verifies the exported file, one TorchScript file of a model for all engines."""
