"""Benchmarks of points that are known in two pictures: where a matcher finds those of the first in the second."""
