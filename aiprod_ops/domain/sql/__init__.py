"""What a statement says: PostgreSQL's own parse tree, read for what an index could serve."""
