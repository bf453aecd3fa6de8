"""A job's files on disk."""
