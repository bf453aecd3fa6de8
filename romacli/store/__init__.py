"""What lies on disk. Knows nothing of how matches were made."""
