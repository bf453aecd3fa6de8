"""Commands that show matches, jobs and points."""
