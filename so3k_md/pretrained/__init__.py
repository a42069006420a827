"""Models that come with so3k-md: NAME.pt with its card NAME.md."""
