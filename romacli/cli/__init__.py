"""The command line: the only place with Typer, rich and exit codes; one file per command."""
