-- Most common values with their frequencies and histogram bounds as texts: users' data, never logged.
SELECT /* aiprod-ops */
       s.schemaname::text AS schema, s.tablename::text AS table, s.attname::text AS column,
       s.most_common_vals::text::text[] AS values, s.most_common_freqs::float8[] AS frequencies,
       s.histogram_bounds::text::text[] AS bounds
  FROM pg_stats s
  JOIN unnest(%(schemas)s::text[], %(tables)s::text[], %(columns)s::text[]) AS w(schema, name, attribute)
    ON s.schemaname = w.schema AND s.tablename = w.name AND s.attname = w.attribute
 WHERE NOT s.inherited
