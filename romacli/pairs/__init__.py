"""Lists of image pairs from something; pure functions that know neither pixels nor matchers."""
