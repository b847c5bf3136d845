"""Limits. Requests are decided in Redis, and by each process alone where it fails; jobs in PostgreSQL."""
