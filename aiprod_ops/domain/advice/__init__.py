"""Which indexes a workload is missing, and whether one that exists already gives it."""
