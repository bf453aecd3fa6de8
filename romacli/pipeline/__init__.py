"""The work in order, from photographs to a model. Knows neither Typer nor rich."""
