"""Benchmarks of localization, judged by their server: the poses of queries are written as it takes them."""
