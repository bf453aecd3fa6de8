"""Photographs in a folder: names, pixels, metadata."""
