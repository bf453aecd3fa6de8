"""Layers and operations that several networks share. Each knows tensors alone."""
