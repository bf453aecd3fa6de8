"""The loop over pairs: its schedule, its threads, and the processes that share it."""
