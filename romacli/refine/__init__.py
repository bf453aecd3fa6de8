"""Tracks moved to where the photographs themselves agree, by least-squares matching. Arrays in, arrays out."""
