"""What is particular to each network behind the seam: one module a network, with an `ADAPTER`."""
