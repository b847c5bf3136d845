-- Schemas that an unqualified name is searched in, and the one that holds an alembic_version table that we may read.
SELECT /* aiprod-ops */ current_schemas(false)::text[] AS search_path,
       (SELECT n.nspname::text
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'version_num'
         WHERE c.relname = 'alembic_version' AND c.relkind = 'r' AND n.nspname = ANY (current_schemas(false))
           AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
         ORDER BY array_position(current_schemas(false), n.nspname)
         LIMIT 1) AS revisions_in
