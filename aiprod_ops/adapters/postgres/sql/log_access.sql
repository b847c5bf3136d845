-- Whether this role may read the server's log files, and whether there is a JSON log; the folder is null where it may not see it.
SELECT /* aiprod-ops */
       has_function_privilege('pg_ls_logdir()', 'EXECUTE') AS lists,
       has_function_privilege('pg_read_binary_file(text, bigint, bigint, boolean)', 'EXECUTE') AS reads,
       (SELECT setting FROM pg_settings WHERE name = 'log_directory') AS folder,
       current_setting('log_destination') LIKE '%jsonlog%' AS has_json,
       quote_ident(current_user) AS role, current_database()::text AS database
