"""What is known of a structure before any model sees it: its cell, its bonds."""
