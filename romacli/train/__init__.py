"""Training of mini, RoMa and MATCHA's fusion network: losses, pairs, and one loop for all."""
