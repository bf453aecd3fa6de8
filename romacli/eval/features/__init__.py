"""Evaluate frozen features for matching, by a linear layer and kernel nearest neighbours."""
