"""Evaluate matchers, models and clouds against ground truth."""
