"""Pure array functions: pixel frames, warps, epipolar geometry."""
