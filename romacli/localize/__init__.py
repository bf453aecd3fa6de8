"""Query photographs into a finished model: matched with its images, attached to its points, posed."""
