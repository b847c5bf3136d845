-- Who builds, rebuilds or drops an index right now. Locks are shown to everybody, what a session does only to pg_read_all_stats.
-- CREATE INDEX CONCURRENTLY holds the table, REINDEX and DROP INDEX CONCURRENTLY the indexes too, from their start to their end.
SELECT /* aiprod-ops */
       l.relation, c.relkind IN ('i', 'I') AS is_index, coalesce(p.index_relid, 0) AS only_index,
       p.pid IS NOT NULL AS is_build, l.pid,
       coalesce(a.usename::text, 'a role that is not shown') AS role, coalesce(a.application_name, '') AS application
  FROM pg_locks l
  JOIN pg_class c ON c.oid = l.relation
  LEFT JOIN pg_stat_progress_create_index p ON p.pid = l.pid
  LEFT JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'relation' AND l.granted AND l.pid <> pg_backend_pid()
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND l.mode IN ('ShareUpdateExclusiveLock', 'AccessExclusiveLock')
   AND (p.pid IS NOT NULL OR c.relkind IN ('i', 'I'))
 ORDER BY l.pid, l.relation
