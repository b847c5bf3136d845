-- Whether pg_stat_statements is there, is loaded, and may be read; libraries are null where the role may not see them.
SELECT /* aiprod-ops */
       n.nspname::text AS schema,
       n.oid IS NOT NULL AND has_schema_privilege(n.oid, 'USAGE') AS is_usable,
       EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = 'pg_stat_statements_info') AS has_info,
       ARRAY (SELECT a.attname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
               WHERE c.relnamespace = n.oid AND c.relname = 'pg_stat_statements' ORDER BY a.attnum) AS columns,
       current_setting('pg_stat_statements.max', true) IS NOT NULL AS is_loaded,
       coalesce(current_setting('pg_stat_statements.track', true), 'top') AS track,
       (SELECT setting FROM pg_settings WHERE name = 'shared_preload_libraries') AS libraries,
       (SELECT count(*) FROM pg_class c JOIN pg_namespace t ON t.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'm') AND t.nspname !~ '^pg_' AND t.nspname <> 'information_schema'
           AND NOT has_any_column_privilege(c.oid, 'SELECT')) AS hidden_tables,
       pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS reads_all,
       quote_ident(current_user) AS role, current_database()::text AS database, quote_ident(n.nspname) AS quoted_schema
  FROM (SELECT) AS one
  LEFT JOIN pg_extension e ON e.extname = 'pg_stat_statements'
  LEFT JOIN pg_namespace n ON n.oid = e.extnamespace
