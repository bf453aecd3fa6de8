"""`python -m romacli` and the `romacli` command."""

import os

# Read when torch loads. Threads that wait by spinning took eight times the CPU on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from romacli.cli.app import main  # noqa: E402

if __name__ == "__main__":
    main()
