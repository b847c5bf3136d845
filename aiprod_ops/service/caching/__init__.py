"""The parts of the cache: one concept a file. What a user types is in `aiprod_ops.service.cache`."""
