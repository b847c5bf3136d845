-- amcheck's test of b-trees under an ordinary reader's lock, with or without a look for each row of the table; it fails where one is damaged.
SELECT /* aiprod-ops */ {function}(x.oid::regclass, %(rows)s)
  FROM unnest(%(schemas)s::text[], %(names)s::text[]) AS w(schema, name)
  JOIN pg_namespace n ON n.nspname = w.schema
  JOIN pg_class x ON x.relnamespace = n.oid AND x.relname = w.name
