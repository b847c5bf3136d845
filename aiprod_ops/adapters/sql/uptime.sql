-- Seconds since the server started: where pg_stat_statements does not tell since when it counts (before PostgreSQL 14).
SELECT /* aiprod-ops */ extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8 AS seconds
