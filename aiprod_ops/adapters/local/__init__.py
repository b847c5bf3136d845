"""Servers, copies and migrations on this machine, as programs that we start and end."""
