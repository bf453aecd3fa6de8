"""Pairs that hardly match as they are, tried again another way."""
