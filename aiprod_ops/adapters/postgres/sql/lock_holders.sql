-- Who has locked which table against reading it, or waits to lock it and is waited for by all others; longest first.
SELECT /* aiprod-ops */ l.relation::regclass::text AS relation, l.pid, a.state, a.usename
  FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.mode = 'AccessExclusiveLock' AND l.locktype = 'relation'
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND l.pid <> pg_backend_pid()
   AND l.relation IN (SELECT oid FROM pg_class WHERE relkind IN ('r', 'm'))
 ORDER BY l.granted DESC, a.xact_start
 LIMIT 3
