"""The only importer of pycolmap. Knows no torch."""
