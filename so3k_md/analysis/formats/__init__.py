"""Files of trajectories to arrays: what is whole is read, what is missing is said."""
