"""Stored backups of pgBackRest, through the program of that name."""
