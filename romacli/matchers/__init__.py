"""Matchers: networks behind one interface that encodes images once and matches pairs in batches."""
