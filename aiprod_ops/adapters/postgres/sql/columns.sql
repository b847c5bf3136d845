-- Columns of users' tables and materialised views in their order; one row for each column, and one with nulls for a table without.
WITH types AS MATERIALIZED (
    SELECT t.oid, CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END AS first_base FROM pg_type t
), bases AS MATERIALIZED (
    -- A domain over a domain is followed once more; deeper ones read as not ordered, which only costs a proposal.
    SELECT t.oid, b.oid AS base, b.typtype, b.typcategory, b.typelem,
           CASE WHEN b.typcategory = 'A' THEN b.typelem ELSE b.oid END AS element
      FROM types t
      JOIN pg_type f ON f.oid = t.first_base
      JOIN pg_type b ON b.oid = CASE WHEN f.typtype = 'd' THEN f.typbasetype ELSE f.oid END
), ordered AS MATERIALIZED (
    SELECT o.opcintype AS type FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod
     WHERE m.amname = 'btree' AND o.opcdefault
    UNION
    SELECT k.castsource FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod JOIN pg_cast k ON k.casttarget = o.opcintype
     WHERE m.amname = 'btree' AND o.opcdefault AND k.castmethod = 'b' AND k.castcontext = 'i'
), byte_order AS MATERIALIZED (
    -- to_jsonb: datlocprovider and the builtin provider came with PostgreSQL 15 and 17.
    SELECT l.oid,
           CASE WHEN l.collprovider = 'b' OR (l.collprovider = 'c' AND l.collcollate IN ('C', 'POSIX')) THEN true
                WHEN l.collprovider = 'd' THEN coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') = 'b'
                     OR (coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') = 'c' AND d.datcollate IN ('C', 'POSIX'))
                ELSE false END AS is_c
      FROM pg_collation l, pg_database d WHERE d.datname = current_database()
)
SELECT /* aiprod-ops */
       n.nspname::text AS schema, c.relname::text AS table, a.attname::text AS column,
       format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS is_not_null,
       b.base IN (SELECT type FROM ordered) OR b.typtype IN ('e', 'r', 'm')
       OR (b.typcategory = 'A' AND (b.element IN (SELECT type FROM ordered)
                                    OR (SELECT typtype IN ('e', 'r', 'm') FROM pg_type WHERE oid = b.element))) AS btree,
       b.base IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype) AS is_text,
       coalesce(y.is_c, false) AS is_c_collated
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN bases b ON b.oid = a.atttypid
  LEFT JOIN byte_order y ON y.oid = a.attcollation
 WHERE c.relkind IN ('r', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
 ORDER BY n.nspname::text COLLATE "C", c.relname::text COLLATE "C", a.attnum
