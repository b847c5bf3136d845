"""Templates and hand-written pages of the docs."""
