"""Training of mini and RoMa: losses, pairs, and one loop for both."""
