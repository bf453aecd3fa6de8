"""Readers of the benchmarks' data, which check that it is complete before anything runs."""
