"""Everything that uses pycolmap."""
