"""Matchers that describe one image at a time, by name."""
