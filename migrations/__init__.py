"""Alembic migrations of AIPROD's schema."""
