"""Training: four sections of configuration, the loss, and a plain loop that survives being killed."""
