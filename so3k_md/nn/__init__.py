"""The parts of the model, each with its formula; all of it can be scripted."""
