"""Batches: items are read as they come, validated one by one, kept in a file, and copied into the table at once."""
