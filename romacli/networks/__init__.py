"""The papers' networks as nn.Module: tensors in, tensors out."""
