"""Commands from matches to COLMAP models, and what is made of these."""
