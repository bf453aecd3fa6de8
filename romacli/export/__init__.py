"""A finished job in the formats of other programs."""
