"""Benchmarks of reconstruction: scenes are matched once, and models of their photographs are evaluated."""
