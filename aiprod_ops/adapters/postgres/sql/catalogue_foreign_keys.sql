-- Foreign keys of users' tables with the referencing columns in their order; of a partitioned table once, with its leaves.
SELECT /* aiprod-ops */
       k.conname::text AS name, n.nspname::text AS schema, c.relname::text AS table,
       rn.nspname::text AS referenced_schema, r.relname::text AS referenced,
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u(number, position)
               JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.number ORDER BY u.position) AS columns,
       greatest(c.reltuples, 0)::float8 AS rows, c.relkind = 'p' AS is_partitioned,
       CASE WHEN c.relkind = 'p' THEN
            ARRAY(SELECT ARRAY[ln.nspname::text, l.relname::text]
                    FROM pg_partition_tree(c.oid) t JOIN pg_class l ON l.oid = t.relid JOIN pg_namespace ln ON ln.oid = l.relnamespace
                   WHERE t.isleaf ORDER BY ln.nspname, l.relname) END AS partitions
  FROM pg_constraint k
  JOIN pg_class c ON c.oid = k.conrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_class r ON r.oid = k.confrelid
  JOIN pg_namespace rn ON rn.oid = r.relnamespace
 WHERE k.contype = 'f' AND k.conparentid = 0 AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
 ORDER BY n.nspname::text COLLATE "C", c.relname::text COLLATE "C", k.conname::text COLLATE "C"
