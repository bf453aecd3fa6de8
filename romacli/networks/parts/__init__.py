"""Layers and operations shared by several networks. They operate on tensors only."""
