"""Find pairs of places that only look alike, by what their warps fail to match: pure functions of warps."""
