-- Constraints of tables and domains that are not validated. NOT ENFORCED ones (PostgreSQL 18) never are, on purpose; partitions follow their parent.
SELECT /* aiprod-ops */
       k.conname::text AS name,
       format('%s.%s', coalesce(cn.nspname, tn.nspname), coalesce(c.relname, t.typname)) AS table,
       CASE k.contype WHEN 'f' THEN 'foreign key' WHEN 'n' THEN 'NOT NULL' ELSE 'check' END AS kind,
       CASE WHEN c.oid IS NOT NULL THEN format('ALTER TABLE %I.%I VALIDATE CONSTRAINT %I', cn.nspname, c.relname, k.conname)
            ELSE format('ALTER DOMAIN %I.%I VALIDATE CONSTRAINT %I', tn.nspname, t.typname, k.conname) END AS validation
  FROM pg_constraint k
  LEFT JOIN pg_class c ON c.oid = k.conrelid
  LEFT JOIN pg_namespace cn ON cn.oid = c.relnamespace
  LEFT JOIN pg_type t ON t.oid = k.contypid
  LEFT JOIN pg_namespace tn ON tn.oid = t.typnamespace
 WHERE NOT k.convalidated AND coalesce(to_jsonb(k) ->> 'conenforced', 'true') = 'true'
   AND k.conparentid = 0 AND (k.conislocal OR k.coninhcount = 0)
   AND coalesce(cn.nspname, tn.nspname) !~ '^pg_' AND coalesce(cn.nspname, tn.nspname) <> 'information_schema'
 ORDER BY 2, 1
