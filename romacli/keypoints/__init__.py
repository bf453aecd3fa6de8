"""Keypoints shared by many views: tracks from compact warps."""
