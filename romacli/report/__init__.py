"""Drawings of pairs and the report of a job. Reads stores and photographs, never matches."""
