-- Keys and included columns of users' indexes in their order; one row for each, with the index's own facts repeated.
SELECT /* aiprod-ops */
       n.nspname::text AS schema, c.relname::text AS table, xn.nspname::text AS index_schema, x.relname::text AS index,
       pg_get_indexdef(x.oid) AS definition, m.amname::text AS method,
       i.indisunique AS is_unique, i.indisvalid AS is_valid, i.indisready AS is_ready,
       coalesce(pg_get_expr(i.indpred, i.indrelid, true), '') AS predicate,
       coalesce(k.conname::text, '') AS constraint,
       p.position, p.position > i.indnkeyatts AS is_included,
       a.attname IS NULL OR is_foreign_collation AS is_expression,
       CASE WHEN a.attname IS NULL THEN pg_get_indexdef(x.oid, p.position, true)
            WHEN is_foreign_collation THEN format('%I COLLATE %I', a.attname, l.collname)
            ELSE a.attname::text END AS key,
       coalesce(i.indoption[p.position - 1] & 1, 0) <> 0 AS is_descending,
       coalesce(i.indoption[p.position - 1] & 2, 0) <> 0 AS is_nulls_first,
       CASE WHEN o.opcdefault THEN '' ELSE coalesce(o.opcname::text, '') END AS operator_class
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indrelid AND c.relkind IN ('r', 'm')
  JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  JOIN pg_class x ON x.oid = i.indexrelid
  JOIN pg_namespace xn ON xn.oid = x.relnamespace
  JOIN pg_am m ON m.oid = x.relam
  CROSS JOIN LATERAL generate_series(1, i.indnatts) AS p(position)
  LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[p.position - 1] AND a.attnum <> 0
  LEFT JOIN pg_opclass o ON o.oid = i.indclass[p.position - 1] AND p.position <= i.indnkeyatts
  LEFT JOIN pg_collation l ON l.oid = i.indcollation[p.position - 1] AND p.position <= i.indnkeyatts
  LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x')
  CROSS JOIN LATERAL (SELECT coalesce(l.oid <> a.attcollation, false)) AS f(is_foreign_collation)
 ORDER BY 1, 2, xn.nspname::text COLLATE "C", x.relname::text COLLATE "C", p.position
