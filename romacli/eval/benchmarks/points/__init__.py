"""Benchmarks of known point pairs: where a matcher finds the points of the first picture in the second."""
