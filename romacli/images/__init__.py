"""The folder of photographs: names, pixels, metadata."""
