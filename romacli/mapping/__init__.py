"""A COLMAP database into a model, and what a model tells."""
