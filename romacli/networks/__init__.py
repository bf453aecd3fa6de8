"""The papers as nn.Module: tensors in, tensors out."""
