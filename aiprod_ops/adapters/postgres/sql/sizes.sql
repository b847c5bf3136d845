-- Rows, pages and bytes of users' tables. A table that somebody has locked against reading is not waited for: its pages are counted.
SELECT /* aiprod-ops */
       n.nspname::text AS schema, c.relname::text AS table,
       greatest(c.reltuples, 0)::float8 AS rows, c.relpages AS pages,
       CASE WHEN c.oid IN (SELECT relation FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND locktype = 'relation')
            THEN c.relpages::bigint * current_setting('block_size')::bigint
            ELSE coalesce(pg_table_size(c.oid), 0) END AS size
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
