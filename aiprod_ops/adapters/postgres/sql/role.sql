-- The session's role, quoted as SQL needs it.
SELECT /* aiprod-ops */ quote_ident(current_user) AS role
