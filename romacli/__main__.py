"""`python -m romacli` and the `romacli` command."""

import os

# Threads that wait by spinning took eight times the CPU on a busy machine; OpenMP reads this when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from romacli.cli.app import main  # noqa: E402

if __name__ == "__main__":
    main()
