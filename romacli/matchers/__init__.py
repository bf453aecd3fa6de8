"""Matchers: networks behind one interface, encoding images once and matching pairs in batches."""
