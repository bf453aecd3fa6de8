"""The data of the benchmarks: a file that reads each, and says what is missing before anything runs."""
