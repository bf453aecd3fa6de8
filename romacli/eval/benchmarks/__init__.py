"""The papers' benchmarks: a row in `table` and a file that reads the data of each."""
