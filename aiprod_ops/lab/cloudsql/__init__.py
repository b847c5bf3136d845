"""An emulator of the Cloud SQL Admin API (`sqladmin` v1) whose instances are real PostgreSQL servers on loopback.

Begin with `emulator`. What a request may hold is in `discovery`, what Google answers in `documents` and `refusals`;
`servers` does the work.
"""
