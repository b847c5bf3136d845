"""What the server's catalogue says of indexes, and what is wrong with them."""
