"""Sources of pairs: for each its options and the files and photographs it reads; `pairs` does the choosing."""
