-- The database's own collation, with the version recorded (PostgreSQL 15) and the one that the operating system has now.
SELECT /* aiprod-ops */
       'default' AS name, coalesce(d.datcollversion, '') AS recorded,
       coalesce(pg_database_collation_actual_version(d.oid), '') AS actual,
       format('ALTER DATABASE %I REFRESH COLLATION VERSION', d.datname) AS refresh
  FROM pg_database d WHERE d.datname = current_database()
