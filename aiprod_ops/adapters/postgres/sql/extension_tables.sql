-- Tables and materialised views that belong to an extension.
SELECT /* aiprod-ops */ n.nspname::text AS schema, c.relname::text AS table
  FROM pg_depend d
  JOIN pg_class c ON c.oid = d.objid AND c.relkind IN ('r', 'm')
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
 ORDER BY n.nspname::text COLLATE "C", c.relname::text COLLATE "C"
