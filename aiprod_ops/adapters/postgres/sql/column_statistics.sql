-- What ANALYZE knows of each column of users' tables, without any value: the frequencies of the 100 most common ones at most.
SELECT /* aiprod-ops */
       s.schemaname::text AS schema, s.tablename::text AS table, s.attname::text AS column,
       s.null_frac::float8 AS null_fraction, s.n_distinct::float8 AS distinct, s.avg_width AS width,
       coalesce(s.correlation, 0)::float8 AS correlation,
       (s.most_common_freqs[1:100])::float8[] AS frequencies
  FROM pg_stats s
 WHERE NOT s.inherited AND s.schemaname !~ '^pg_' AND s.schemaname <> 'information_schema'
