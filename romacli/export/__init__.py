"""Export a finished job to the formats of other programs."""
