-- Counters of this database's statements, a row for each user and statement, or one without a statement; those that are not shown have the number 0.
-- Transaction control and settings are left out: they execute nothing, and every session of ours sends some.
-- `total`, `planning`, … are the view's columns, or the constants of `lacking` where its version has none.
SELECT /* aiprod-ops */ statement_timestamp() AS taken, pg_postmaster_start_time() AS started, c.*
  FROM (SELECT) AS one
  LEFT JOIN (
    SELECT coalesce(s.queryid, 0) AS query_id, s.userid::bigint AS user_id, max({since}) AS since,
           coalesce(bool_and(s.query ~* '^(\s|\(|--[^\n]*\n|/\*([^*]|\*+[^*/])*\*+/)*(select|insert|update|delete|with)\M'), true)
               AS is_query,
           sum(s.calls)::bigint AS calls, sum({total})::float8 AS total, sum({planning})::float8 AS planning,
           sum(s.rows)::bigint AS rows, sum(s.shared_blks_hit + s.shared_blks_read)::bigint AS blocks,
           sum(s.temp_blks_written)::bigint * current_setting('block_size')::int AS temp, sum({wal})::bigint AS wal
      FROM (SELECT true AS always, 0 AS zero, NULL::timestamptz AS never) AS lacking
     CROSS JOIN {statements} AS s
     WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND {toplevel}
       AND coalesce(s.query NOT LIKE '%/* aiprod-ops%', true)
       AND coalesce(s.query !~* '^\s*(begin|start transaction|commit|end|rollback|savepoint|release|set|reset|show|deallocate|discard)\M', true)
     GROUP BY 1, 2
  ) AS c ON true
