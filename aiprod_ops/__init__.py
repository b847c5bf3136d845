"""Runbooks that run, and prove themselves."""
