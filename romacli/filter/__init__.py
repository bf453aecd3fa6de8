"""Pairs of places that look alike, told by what their warps miss: pure functions of warps."""
