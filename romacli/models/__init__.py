"""The papers' networks as `nn.Module`s, tensors in and tensors out; photographs are unknown here."""
