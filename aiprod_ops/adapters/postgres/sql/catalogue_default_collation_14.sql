-- The database's own collation before PostgreSQL 15, which records no version: an actual one is there unless it is byte order.
SELECT /* aiprod-ops */
       'default' AS name, '' AS recorded,
       CASE WHEN d.datcollate IN ('C', 'POSIX') OR d.datcollate LIKE 'C.%' THEN '' ELSE d.datcollate::text END AS actual,
       '' AS refresh
  FROM pg_database d WHERE d.datname = current_database()
