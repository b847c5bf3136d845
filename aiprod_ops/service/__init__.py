"""What a service imports: parts of an API that are kept right by the same rules as its operations."""
