-- Which of these indexes are there, and still not valid: read after the builds in progress, so that one that ended in between is not blamed.
SELECT /* aiprod-ops */ i.indexrelid AS oid, i.indisvalid AND i.indisready AND i.indislive AS is_usable
  FROM pg_index i WHERE i.indexrelid = ANY (%(indexes)s::oid[])
