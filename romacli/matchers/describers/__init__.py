"""Keypoint matchers: networks that describe one image at a time."""
