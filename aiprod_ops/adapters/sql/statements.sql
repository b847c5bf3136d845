-- Statements of this database with their figures, summed over users, the 200 with the largest total time first; the total of all.
-- `toplevel` is the view's own column where the extension has it (1.9), else the constant beside it.
WITH called AS MATERIALIZED (
    SELECT s.queryid, s.query, s.calls, s.total_exec_time, s.rows
      FROM (SELECT true AS toplevel) AS always
     CROSS JOIN {statements} AS s
     WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND (SELECT toplevel FROM (SELECT s.*) AS own)
       AND coalesce(s.query NOT LIKE '%/* aiprod-ops */%', true)
), listed AS (
    SELECT queryid, (array_agg(query ORDER BY calls DESC, query))[1] AS query, sum(calls)::bigint AS calls,
           sum(total_exec_time)::float8 AS total_ms, sum(rows)::bigint AS rows
      FROM called
     WHERE queryid IS NOT NULL
       AND query ~* '^(\s|\(|--[^\n]*\n|/\*([^*]|\*+[^*/])*\*+/)*(select|insert|update|delete|with)\M'
     GROUP BY queryid
     ORDER BY sum(total_exec_time) DESC, queryid
     LIMIT 200
)
SELECT /* aiprod-ops */ t.everything_ms, l.*
  FROM (SELECT coalesce(sum(total_exec_time), 0)::float8 AS everything_ms FROM called) AS t
  LEFT JOIN listed l ON true
 ORDER BY l.total_ms DESC, l.queryid
