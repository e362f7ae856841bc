"""What hardware is there, what does a model cost on it, where does it fit; start, join, stop."""
