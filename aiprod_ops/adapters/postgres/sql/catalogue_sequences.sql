-- Users' sequences, one row for each column that takes values from one, and one for a sequence that no column does.
WITH consumers AS (
    SELECT d.objid AS sequence, d.refobjid AS relation, d.refobjsubid AS number
      FROM pg_depend d
     WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
     UNION
    SELECT d.refobjid, f.adrelid, f.adnum
      FROM pg_depend d JOIN pg_attrdef f ON f.oid = d.objid
     WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass
)
SELECT /* aiprod-ops */
       n.nspname::text AS schema, c.relname::text AS sequence,
       q.seqmin AS smallest, q.seqmax AS largest, q.seqincrement AS increment, q.seqcycle AS cycles,
       NOT v.is_open AS is_hidden,
       CASE WHEN v.is_open AND (c.relpersistence = 'p' OR NOT pg_is_in_recovery()) THEN pg_sequence_last_value(c.oid) END AS last,
       CASE WHEN t.largest IS NOT NULL THEN format('%s.%s.%s', tn.nspname, h.relname, a.attname) END AS column,
       t.largest AS column_largest
  FROM pg_sequence q
  JOIN pg_class c ON c.oid = q.seqrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  CROSS JOIN LATERAL (SELECT has_sequence_privilege(c.oid, 'USAGE, SELECT')) AS v(is_open)
  LEFT JOIN consumers u ON u.sequence = c.oid
  LEFT JOIN pg_attribute a ON a.attrelid = u.relation AND a.attnum = u.number AND NOT a.attisdropped
  LEFT JOIN pg_type y ON y.oid = a.atttypid
  LEFT JOIN (VALUES ('int2'::regtype::oid, 32767::bigint), ('int4'::regtype::oid, 2147483647), ('int8'::regtype::oid, 9223372036854775807))
         AS t(type, largest) ON t.type = CASE WHEN y.typtype = 'd' THEN y.typbasetype ELSE y.oid END
  LEFT JOIN pg_class h ON h.oid = a.attrelid
  LEFT JOIN pg_namespace tn ON tn.oid = h.relnamespace
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
 ORDER BY n.nspname::text COLLATE "C", c.relname::text COLLATE "C", 9
