"""The benchmarks by name: their rows, by what they ask."""
