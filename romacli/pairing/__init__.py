"""Sources of pairs: each with its options and the files and photographs it reads; `pairs` implements the choice."""
