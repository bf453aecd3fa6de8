"""Map a COLMAP database to a model, and evaluate models."""
