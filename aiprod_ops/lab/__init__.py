"""A real fleet on one machine: PostgreSQL with two replicas, Redis, data, a workload, and faults on demand."""
