-- When pg_stat_statements was reset, and how often it threw entries out for want of room.
SELECT /* aiprod-ops */ stats_reset AS since, dealloc AS evictions FROM {info}
