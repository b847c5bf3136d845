"""What runbooks do to PostgreSQL and measure there, over the ports."""
