"""One TorchScript file from a trained model: written, verified, and wrapped for the engines."""
