"""The folder of photographs: names, pixels, metadata. Knows no matchers."""
