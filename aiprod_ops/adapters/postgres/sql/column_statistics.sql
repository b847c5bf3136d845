-- What ANALYZE knows of each column of users' tables, without any value: the frequencies of the 100 most common ones at most.
-- Of a boolean also which share is true.
SELECT /* aiprod-ops */
       s.schemaname::text AS schema, s.tablename::text AS table, s.attname::text AS column,
       s.null_frac::float8 AS null_fraction, s.n_distinct::float8 AS distinct, s.avg_width AS width,
       coalesce(s.correlation, 0)::float8 AS correlation,
       (s.most_common_freqs[1:100])::float8[] AS frequencies,
       CASE WHEN a.atttypid = 'boolean'::regtype
            THEN coalesce(s.most_common_freqs[array_position(s.most_common_vals::text::text[], 't')], 0)::float8 END AS true
  FROM pg_stats s
  JOIN pg_namespace n ON n.nspname = s.schemaname
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = s.tablename
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = s.attname
 WHERE NOT s.inherited AND s.schemaname !~ '^pg_' AND s.schemaname <> 'information_schema'
