"""Commands on matchers: their weights, speed, accuracy and training."""
