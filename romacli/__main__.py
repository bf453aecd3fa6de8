"""`python -m romacli` and the `romacli` command."""

import os

# Both are read when torch loads. Threads that wait by spinning took eight times the CPU on a busy machine. Each large
# tensor is new memory, and mapping it in pages of 4 kB took a quarter of RoMa's time on a CPU.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

from romacli.cli.app import main  # noqa: E402

if __name__ == "__main__":
    main()
