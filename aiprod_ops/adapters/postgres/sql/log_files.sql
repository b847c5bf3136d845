-- The server's JSON log files, newest first.
SELECT /* aiprod-ops */ name, size FROM pg_ls_logdir() WHERE name LIKE '%.json' ORDER BY modification DESC, name DESC
