"""Scenes with exact warps, noise and textures, for training, evaluation, tests and examples.

Planes, cameras and grey levels only; independent of networks.
"""
