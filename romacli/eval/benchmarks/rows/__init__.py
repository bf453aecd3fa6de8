"""Rows of the table of benchmarks, by task."""
