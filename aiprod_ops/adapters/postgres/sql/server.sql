-- Who answers: identity, version, role, and whether the role could change data if it were let.
SELECT /* aiprod-ops */
       (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier,
       current_setting('server_version_num')::int AS version,
       current_database()::text AS database,
       current_user::text AS role,
       current_setting('is_superuser') = 'on' AS is_superuser,
       pg_is_in_recovery() AS is_standby,
       current_setting('is_superuser') = 'on'
       OR has_database_privilege(current_database(), 'CREATE')
       OR EXISTS (SELECT FROM pg_namespace n
                   WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
                     AND has_schema_privilege(n.oid, 'CREATE'))
       OR EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
                     AND has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')) AS can_write
