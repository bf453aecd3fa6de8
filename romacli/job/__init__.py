"""A job and its folder: opened, run, derived from, checked, merged."""
