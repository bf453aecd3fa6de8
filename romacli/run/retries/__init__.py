"""Retries of pairs that hardly match."""
