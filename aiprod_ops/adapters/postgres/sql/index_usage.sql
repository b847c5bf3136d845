-- Scans of users' indexes that are not unique, on this node; those of partitions are added to their topmost parent's.
SELECT /* aiprod-ops */
       n.nspname::text AS schema, x.relname::text AS index,
       sum(pg_stat_get_numscans(i.indexrelid))::bigint AS scans,
       max((to_jsonb(s) ->> 'last_idx_scan')::timestamptz) AS last
  FROM pg_index i
  JOIN pg_class l ON l.oid = i.indexrelid AND l.relkind = 'i'
  LEFT JOIN pg_stat_all_indexes s ON s.indexrelid = i.indexrelid
  JOIN pg_class x ON x.oid = CASE WHEN l.relispartition THEN pg_partition_root(l.oid) ELSE l.oid END
  JOIN pg_namespace n ON n.oid = x.relnamespace AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
 WHERE NOT i.indisunique
 GROUP BY 1, 2
