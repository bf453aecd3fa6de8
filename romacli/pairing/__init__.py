"""Which photographs are matched with which: sources of pairs, with the files and photographs they read."""
