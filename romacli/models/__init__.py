"""The papers' networks as `nn.Module`s, tensors in and tensors out; paths and photographs are unknown here."""
