"""Calibrate cameras from the verified pairs of a database."""
