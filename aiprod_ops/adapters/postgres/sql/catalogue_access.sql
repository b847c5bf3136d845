-- Who asks, and whether the extensions that read index pages are there and open to this role.
WITH functions AS (
    SELECT e.extname::text AS extension, n.nspname::text AS schema,
           has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE') AS may_execute,
           CASE WHEN has_function_privilege(p.oid, 'EXECUTE') THEN format('GRANT USAGE ON SCHEMA %I TO %I', n.nspname, current_user)
                WHEN e.extname = 'pgstattuple' THEN format('GRANT pg_stat_scan_tables TO %I', current_user)
                ELSE format('GRANT EXECUTE ON FUNCTION %I.bt_index_check(regclass, boolean) TO %I', n.nspname, current_user) END AS grant
      FROM pg_extension e
      JOIN pg_namespace n ON n.oid = e.extnamespace
      JOIN pg_proc p ON p.pronamespace = n.oid
     WHERE (e.extname = 'pgstattuple' AND p.proname = 'pgstatindex' AND p.proargtypes = array_to_string(ARRAY['regclass'::regtype::oid], ' ')::oidvector)
        OR (e.extname = 'amcheck' AND p.proname = 'bt_index_check'
            AND p.proargtypes = array_to_string(ARRAY['regclass'::regtype::oid, 'bool'::regtype::oid], ' ')::oidvector)
)
SELECT /* aiprod-ops */
       current_setting('server_version_num')::int AS version, current_database()::text AS database,
       quote_ident(current_user) AS role, pg_is_in_recovery() AS is_standby,
       pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS reads_statistics,
       f.extension, f.schema, f.may_execute, f.grant
  FROM (SELECT) AS one LEFT JOIN functions f ON true
