-- What pgstatindex counts in one b-tree; it reads the whole index. No row where it is not there any more.
SELECT /* aiprod-ops */
       s.index_size AS size, s.leaf_pages, s.internal_pages, s.empty_pages, s.deleted_pages, s.avg_leaf_density AS density
  FROM pg_class x
  JOIN pg_namespace n ON n.oid = x.relnamespace
 CROSS JOIN LATERAL {function}(x.oid::regclass) AS s
 WHERE n.nspname = %(schema)s AND x.relname = %(name)s
