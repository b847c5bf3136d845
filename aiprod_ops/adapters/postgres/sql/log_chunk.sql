-- A part of a log file, as bytes: a part cut inside a character would be refused as text.
SELECT /* aiprod-ops */ pg_read_binary_file(%(path)s, %(offset)s, %(length)s, true) AS data
