"""`python -m romacli` and the `romacli` command."""

from romacli.cli.app import main

if __name__ == "__main__":
    main()
