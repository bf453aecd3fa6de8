"""Localize query photographs in a finished model: match them with its images, attach its points, solve poses."""
