-- amcheck's test of one b-tree under an ordinary reader's lock; it fails where the index is damaged.
SELECT /* aiprod-ops */ {function}(x.oid::regclass, false)
  FROM pg_class x JOIN pg_namespace n ON n.oid = x.relnamespace
 WHERE n.nspname = %(schema)s AND x.relname = %(name)s
