-- Collations that an index uses, with the version recorded and the one that the operating system has now.
WITH used AS MATERIALIZED (
    SELECT DISTINCT unnest(i.indcollation::oid[]) AS oid FROM pg_index i
     UNION
    SELECT (regexp_matches(concat(i.indexprs::text, i.indpred::text), ':inputcollid ([1-9]\d*)', 'g'))[1]::oid
      FROM pg_index i WHERE i.indexprs IS NOT NULL OR i.indpred IS NOT NULL
     UNION
    SELECT d.refobjid FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_collation'::regclass
)
SELECT /* aiprod-ops */
       format('%I.%I', n.nspname, l.collname) AS name, coalesce(l.collversion, '') AS recorded,
       coalesce(pg_collation_actual_version(l.oid), '') AS actual,
       format('ALTER COLLATION %I.%I REFRESH VERSION', n.nspname, l.collname) AS refresh
  FROM used u JOIN pg_collation l ON l.oid = u.oid JOIN pg_namespace n ON n.oid = l.collnamespace
 WHERE l.collprovider <> 'd'
 ORDER BY 1
