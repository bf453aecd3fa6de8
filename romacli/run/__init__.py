"""The matching loop: its schedule, its threads, and the processes that share it."""
