"""Benchmarks of reconstructions: scenes that are matched once, and models of their photographs."""
