-- Seconds since the figures of pg_stat_statements began.
SELECT /* aiprod-ops */ extract(epoch FROM clock_timestamp() - stats_reset)::float8 AS seconds FROM {info}
