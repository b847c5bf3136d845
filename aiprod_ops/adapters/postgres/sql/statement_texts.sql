-- Normalised texts of statements by their query ids.
SELECT /* aiprod-ops */ queryid AS query_id, (array_agg(query ORDER BY calls DESC, query))[1] AS query
  FROM {statements}
 WHERE queryid = ANY (%(query_ids)s::bigint[]) AND query IS NOT NULL AND query NOT LIKE '%%/* aiprod-ops%%'
   AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
 GROUP BY queryid
