"""so3k-md."""
