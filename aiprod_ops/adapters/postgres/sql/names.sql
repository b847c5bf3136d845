-- What shares the name space of tables and indexes without being a table or the index of one: it takes names, too.
SELECT /* aiprod-ops */ n.nspname::text AS schema, c.relname::text AS table, c.relkind = 'p' AS is_partitioned
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND c.relkind NOT IN ('r', 'm', 'i')
 ORDER BY n.nspname::text COLLATE "C", c.relname::text COLLATE "C"
