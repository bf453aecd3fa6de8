"""Image pairs chosen by names, positions, poses or descriptors: pure functions behind the sources in `pairing`."""
