"""What jobs cost: a ledger in PostgreSQL, the sums of months, warnings, and its export for billing."""
