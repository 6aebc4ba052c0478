-- Lists the objects of the extension that have no comment. Returns no row if every object has one.
--
-- Not listed: what has no definition of its own (row types of relations, array types, TOAST tables, NOT NULL constraints,
-- internal triggers, rules of views) and system columns.
WITH extension AS (
    SELECT oid FROM pg_extension WHERE extname = 'pg_presence'
), member AS (
    SELECT classid, objid
      FROM pg_depend
     WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM extension) AND deptype = 'e'
), relation AS (
    -- Tables and views, and composite types, whose members are their types.
    SELECT objid AS oid FROM member WHERE classid = 'pg_class'::regclass
    UNION
    SELECT t.typrelid
      FROM member m
      JOIN pg_type t ON m.classid = 'pg_type'::regclass AND t.oid = m.objid
     WHERE t.typrelid <> 0
), object (classid, objid, objsubid) AS (
    SELECT 'pg_extension'::regclass, oid, 0 FROM extension
    UNION ALL
    -- Functions, types and whatever else is a member by itself.
    SELECT m.classid, m.objid, 0
      FROM member m
     WHERE NOT EXISTS (
               SELECT FROM pg_type t
                 LEFT JOIN pg_class c ON c.oid = t.typrelid
                WHERE m.classid = 'pg_type'::regclass AND t.oid = m.objid
                  AND (t.typcategory = 'A' OR c.relkind <> 'c'))
       AND NOT EXISTS (
               SELECT FROM pg_class c
                WHERE m.classid = 'pg_class'::regclass AND c.oid = m.objid AND c.relkind IN ('c', 't'))
    UNION ALL
    SELECT 'pg_class'::regclass, a.attrelid, a.attnum
      FROM pg_attribute a
     WHERE a.attrelid IN (SELECT oid FROM relation) AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT 'pg_class'::regclass, i.indexrelid, 0
      FROM pg_index i
     WHERE i.indrelid IN (SELECT oid FROM relation)
    UNION ALL
    SELECT 'pg_constraint'::regclass, c.oid, 0
      FROM pg_constraint c
     WHERE c.conrelid IN (SELECT oid FROM relation) AND c.contype <> 'n'
    UNION ALL
    SELECT 'pg_trigger'::regclass, t.oid, 0
      FROM pg_trigger t
     WHERE t.tgrelid IN (SELECT oid FROM relation) AND NOT t.tgisinternal
    UNION ALL
    SELECT 'pg_policy'::regclass, p.oid, 0
      FROM pg_policy p
     WHERE p.polrelid IN (SELECT oid FROM relation)
)
SELECT i.type || ' ' || i.identity AS uncommented
  FROM object o,
       LATERAL pg_identify_object(o.classid, o.objid, o.objsubid) i
 WHERE NOT EXISTS (
           SELECT FROM pg_description d
            WHERE d.classoid = o.classid AND d.objoid = o.objid AND d.objsubid = o.objsubid)
 ORDER BY 1;
