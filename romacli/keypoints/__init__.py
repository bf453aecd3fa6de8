"""Many views, one set of points: tracks from compact warps. Knows neither HDF5 nor COLMAP."""
