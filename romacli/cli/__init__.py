"""The front door: the only place with Typer, rich and exit codes; a file for each command."""
