"""Benchmarks: how good a matcher is where the truth is known."""
