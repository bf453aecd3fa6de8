"""Arrays in, arrays out: pixel frames, warps, epipolar geometry. Knows no images on disk and no networks."""
