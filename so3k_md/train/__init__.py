"""Training: configuration in four sections, the loss, and a loop that can resume after it was killed."""
