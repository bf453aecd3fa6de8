"""Networks that give others their features."""
