"""The network-specific parts of dense matchers: one module per network, each with an `ADAPTER`."""
