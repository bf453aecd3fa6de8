"""Drawings of pairs and the report of a job."""
