"""The files of a job on disk."""
