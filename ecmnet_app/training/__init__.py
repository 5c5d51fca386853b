"""Training, data sets and evaluation. Nothing that serves a picture imports this package."""
