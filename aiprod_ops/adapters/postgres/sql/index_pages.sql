-- What pgstatindex counts in b-trees; it reads each as a whole. No row for one that is not there any more.
SELECT /* aiprod-ops */
       w.schema, w.name,
       s.index_size AS size, s.leaf_pages, s.internal_pages, s.empty_pages, s.deleted_pages, s.avg_leaf_density AS density
  FROM unnest(%(schemas)s::text[], %(names)s::text[]) AS w(schema, name)
  JOIN pg_namespace n ON n.nspname = w.schema
  JOIN pg_class x ON x.relnamespace = n.oid AND x.relname = w.name
 CROSS JOIN LATERAL {function}(x.oid::regclass) AS s
