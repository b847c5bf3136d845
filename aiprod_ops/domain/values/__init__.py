"""Real values for a statement's parameters."""
