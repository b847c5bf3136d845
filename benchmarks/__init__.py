"""What is fast, and beside what: `make bench`, or `make bench BENCH=name` for one."""
