"""What the API does: one noun a file, with the routes on it; what is sent for it and what is answered."""
