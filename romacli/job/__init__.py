"""A job and its folder: opening, running, outputs, checking, merging."""
