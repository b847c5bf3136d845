-- Keys and included columns of the indexes in their order. A collation that is not the column's own is part of the key's text.
SELECT /* aiprod-ops */
       i.indexrelid AS oid, p.position > i.indnkeyatts AS is_included,
       i.indkey[p.position - 1] = 0 OR f.is_foreign_collation AS is_expression,
       CASE WHEN f.is_foreign_collation THEN
                 format('%s COLLATE %I', CASE WHEN a.attname IS NULL THEN pg_get_indexdef(i.indexrelid, p.position, true)
                                              ELSE quote_ident(a.attname) END, l.collname)
            WHEN a.attname IS NULL THEN pg_get_indexdef(i.indexrelid, p.position, true)
            ELSE a.attname::text END AS key,
       coalesce(i.indoption[p.position - 1] & 1, 0) <> 0 AS is_descending,
       coalesce(i.indoption[p.position - 1] & 2, 0) <> 0 AS is_nulls_first,
       concat(CASE WHEN o.opcdefault THEN '' ELSE o.opcname::text END, y.attoptions::text) AS operator_class
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  CROSS JOIN LATERAL generate_series(1, i.indnatts) AS p(position)
  JOIN pg_attribute y ON y.attrelid = i.indexrelid AND y.attnum = p.position
  LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[p.position - 1] AND a.attnum <> 0
  LEFT JOIN pg_opclass o ON o.oid = i.indclass[p.position - 1] AND p.position <= i.indnkeyatts
  LEFT JOIN pg_collation l ON l.oid = i.indcollation[p.position - 1] AND p.position <= i.indnkeyatts
  CROSS JOIN LATERAL (SELECT coalesce(l.oid <> coalesce(a.attcollation, 100), false)) AS f(is_foreign_collation)
 WHERE (n.nspname !~ '^pg_' AND n.nspname <> 'information_schema') OR (n.nspname = 'pg_toast' AND NOT (i.indisvalid AND i.indisready AND i.indislive))
 ORDER BY i.indexrelid, p.position
