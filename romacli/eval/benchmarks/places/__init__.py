"""Benchmarks of localization, evaluated by their server: the poses of queries are written in its format."""
