"""Calibrate cameras by the pairs of a database."""
