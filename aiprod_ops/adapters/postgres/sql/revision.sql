-- Alembic's heads in the database, sorted.
SELECT /* aiprod-ops */ coalesce(string_agg(version_num, ',' ORDER BY version_num COLLATE "C"), '') AS revision
  FROM {versions}
