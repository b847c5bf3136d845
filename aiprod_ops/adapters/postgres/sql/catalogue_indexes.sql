-- Users' indexes, one row for each, without their keys; and those of TOAST tables that are not valid.
WITH referenced AS MATERIALIZED (
    SELECT k.conindid, array_agg(format('%s.%s', c.relname, k.conname) ORDER BY c.relname, k.conname) AS names
      FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid WHERE k.contype = 'f' GROUP BY k.conindid
), leading_nulls AS MATERIALIZED (
    SELECT s.schemaname, s.tablename, s.attname, s.null_frac FROM pg_stats s WHERE NOT s.inherited
), compared_by AS MATERIALIZED ( -- what expressions and predicates compare by: of a column's own collation pg_depend knows nothing
    SELECT i.indexrelid, f.found[1]::oid AS operator, f.found[2]::oid AS sort
      FROM pg_index i CROSS JOIN LATERAL regexp_matches(concat(i.indexprs::text, i.indpred::text),
                                                        '(?::opno (\d+) [^{{}}]*)?:inputcollid ([1-9]\d*)', 'g') AS f(found)
     WHERE i.indexprs IS NOT NULL OR i.indpred IS NOT NULL
), sorted_by AS MATERIALIZED (
    SELECT u.indexrelid, array_agg(DISTINCT CASE WHEN l.oid = 100 THEN 'default' ELSE format('%I.%I', n.nspname, l.collname) END) AS names
      FROM (SELECT i.indexrelid, p.sort
              FROM pg_index i CROSS JOIN LATERAL unnest(i.indcollation::oid[], i.indclass::oid[]) AS p(sort, class)
              JOIN pg_opclass o ON o.oid = p.class
             WHERE p.sort <> 0 AND o.opcname NOT LIKE '%pattern\_ops'
               AND o.opcmethod <> (SELECT oid FROM pg_am WHERE amname = 'hash')
             UNION ALL
            SELECT e.indexrelid, e.sort FROM compared_by e JOIN pg_collation w ON w.oid = e.sort LEFT JOIN pg_operator o ON o.oid = e.operator
             WHERE NOT (w.collisdeterministic AND coalesce(o.oprname IN ('=', '<>', '~~', '!~~'), false))) AS u
      JOIN pg_collation l ON l.oid = u.sort JOIN pg_namespace n ON n.oid = l.collnamespace
     GROUP BY u.indexrelid
)
SELECT /* aiprod-ops */
       i.indexrelid AS oid, i.indrelid AS table_oid,
       n.nspname::text AS schema, c.relname::text AS table, xn.nspname::text AS index_schema, x.relname::text AS index,
       pg_get_indexdef(x.oid) AS definition, m.amname::text AS method,
       CASE WHEN i.indpred IS NULL THEN '' ELSE pg_get_expr(i.indpred, i.indrelid, true) END AS predicate,
       i.indisunique AS is_unique, coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false) AS nulls_not_distinct,
       NOT i.indimmediate AS is_deferrable, i.indisvalid AS is_valid, i.indisready AS is_ready, i.indislive AS is_live,
       coalesce(k.conname::text, '') AS constraint, coalesce(k.contype::text, '') AS constraint_kind,
       coalesce(f.names, ARRAY[]::text[]) AS referenced_by,
       i.indisreplident AS is_replica_identity, i.indisclustered AS is_clustered, x.relkind = 'I' AS is_partitioned,
       rn.nspname::text AS root_schema, r.relname::text AS root,
       coalesce((SELECT o.option_value::int FROM pg_options_to_table(x.reloptions) o WHERE o.option_name = 'fillfactor'), 90) AS fillfactor,
       coalesce(x.relfilenode, 0)::bigint AS filenode, greatest(x.reltuples, 0)::float8 AS rows,
       coalesce(pg_relation_size(x.oid), 0) AS size, coalesce(pg_relation_size(c.oid), 0) AS table_size,
       pg_get_userbyid(x.relowner)::text AS owner,
       s.null_frac::float8 AS leading_nulls,
       coalesce(pg_stat_get_mod_since_analyze(c.oid), 0) / greatest(c.reltuples, 1)::float8 AS changed,
       NOT has_column_privilege(a.attrelid, a.attnum, 'SELECT') OR (c.relrowsecurity AND row_security_active(c.oid)) AS hides_statistics,
       coalesce(b.names, ARRAY[]::text[]) AS collations,
       CASE WHEN x.relkind = 'I' AND NOT i.indisvalid THEN
            ARRAY(SELECT ARRAY[hn.nspname::text, h.relname::text]
                    FROM pg_inherits q JOIN pg_class h ON h.oid = q.inhrelid JOIN pg_namespace hn ON hn.oid = h.relnamespace
                   WHERE q.inhparent = i.indrelid
                     AND NOT EXISTS (SELECT FROM pg_inherits t JOIN pg_index ti ON ti.indexrelid = t.inhrelid
                                      WHERE t.inhparent = i.indexrelid AND ti.indrelid = q.inhrelid)
                   ORDER BY hn.nspname, h.relname) END AS unattached
  FROM pg_index i
  JOIN pg_class x ON x.oid = i.indexrelid
  JOIN pg_namespace xn ON xn.oid = x.relnamespace
  JOIN pg_class c ON c.oid = i.indrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_am m ON m.oid = x.relam
  JOIN pg_attribute a ON a.attrelid = CASE WHEN i.indkey[0] = 0 THEN x.oid ELSE c.oid END
                     AND a.attnum = CASE WHEN i.indkey[0] = 0 THEN 1 ELSE i.indkey[0] END
  LEFT JOIN leading_nulls s ON s.schemaname = CASE WHEN i.indkey[0] = 0 THEN xn.nspname ELSE n.nspname END
                     AND s.tablename = CASE WHEN i.indkey[0] = 0 THEN x.relname ELSE c.relname END AND s.attname = a.attname
  LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x')
  LEFT JOIN referenced f ON f.conindid = i.indexrelid
  LEFT JOIN sorted_by b ON b.indexrelid = i.indexrelid
  LEFT JOIN pg_class r ON x.relispartition AND r.oid = pg_partition_root(x.oid)
  LEFT JOIN pg_namespace rn ON rn.oid = r.relnamespace
 WHERE (n.nspname !~ '^pg_' AND n.nspname <> 'information_schema')
    OR (n.nspname = 'pg_toast' AND NOT (i.indisvalid AND i.indisready AND i.indislive))
 ORDER BY xn.nspname::text COLLATE "C", x.relname::text COLLATE "C"
