"""The shipped runbooks: one procedure a file."""
