"""Commands from photographs to a job with its keypoints and matches."""
