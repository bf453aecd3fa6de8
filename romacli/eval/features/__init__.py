"""What frozen features are worth for matching: a linear layer on them, and nearest neighbours by a kernel."""
