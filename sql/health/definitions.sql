-- What the install script has created, as the catalogs describe it, for presence_health() to compare.
--
-- {schema} stands for the name of the schema, which may have been renamed, and {own}, {own_user} and {service} for the conditions of policies. The
-- texts are those of pg_get_expr() and its kin under the search path pg_catalog, without line breaks.

-- `relid` is the table of that name or, if it was renamed or moved to another schema, the member of the extension that was
-- created in its place; null if there is none.
CREATE FUNCTION @extschema@._definitions(wanted pg_catalog.text)
RETURNS SETOF @extschema@._definition
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off
SET standard_conforming_strings = on
AS $function$
    WITH extension AS (
        SELECT e.oid, e.extnamespace, e.extnamespace::regnamespace::text AS home
          FROM pg_extension e WHERE e.extname = 'pg_presence'
    ), member AS (
        SELECT c.oid, c.relname, c.relnamespace, row_number() OVER (ORDER BY c.oid) AS place
          FROM extension e
          JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
                          AND d.classid = 'pg_class'::regclass
          JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'r'
    ), relation (name, place) AS (
        VALUES ('user_sessions', 1), ('user_presence', 2), ('presence_changes', 3), ('_feed_state', 4),
               ('declared_statuses', 5)
    ), found AS (
        SELECT r.name,
               COALESCE(
                   (SELECT c.oid FROM pg_class c
                     WHERE c.relnamespace = e.extnamespace AND c.relname = r.name AND c.relkind IN ('r', 'p')),
                   (SELECT m.oid FROM member m
                     WHERE m.place = r.place
                       AND NOT (m.relnamespace = e.extnamespace AND m.relname IN (SELECT o.name FROM relation o)))) AS oid
          FROM relation r, extension e
    ), definition (kind, relation, name, place, definition, required, fallback) AS (VALUES
        ('table', 'user_sessions', 'user_sessions', 1, 'DEFAULT', true, NULL),
        ('table', 'user_presence', 'user_presence', 2, 'DEFAULT', true, NULL),
        ('table', 'presence_changes', 'presence_changes', 3, 'DEFAULT', true, NULL),
        ('table', '_feed_state', '_feed_state', 4, 'FULL', true, NULL),
        ('table', 'declared_statuses', 'declared_statuses', 5, 'DEFAULT', true, NULL),

        -- Columns: the type, whether it is NOT NULL, and the default.
        ('column', 'user_sessions', 'id', 1, 'uuid', true, 'gen_random_uuid()'),
        ('column', 'user_sessions', 'user_id', 2, 'uuid', true,
            'CASE WHEN (NOT {schema}.is_service()) THEN {schema}.presence_user_id() ELSE NULL::uuid END'),
        ('column', 'user_sessions', 'auth_id', 3, 'uuid', true,
            'CASE WHEN (NOT {schema}.is_service()) THEN {schema}.presence_auth_id() ELSE NULL::uuid END'),
        ('column', 'user_sessions', 'session_token', 4, 'text', true,
            '(''sha256:''::text || encode(sha256((uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))), '
            '''hex''::text))'),
        ('column', 'user_sessions', 'is_active', 5, 'boolean', true, 'true'),
        ('column', 'user_sessions', 'last_activity', 6, 'timestamp with time zone', true, 'now()'),
        ('column', 'user_sessions', 'created_at', 7, 'timestamp with time zone', true, 'now()'),
        ('column', 'user_sessions', 'expires_at', 8, 'timestamp with time zone', true,
            '(now() + (current_setting(''presence.session_lifetime''::text))::interval)'),
        ('column', 'user_sessions', 'metadata', 9, 'jsonb', true, '''{}''::jsonb'),
        ('column', 'user_sessions', 'ended_at', 10, 'timestamp with time zone', false, NULL),
        ('column', 'user_sessions', 'user_key', 11, 'text', false, NULL),
        ('column', 'user_presence', 'user_id', 1, 'uuid', true, NULL),
        ('column', 'user_presence', 'user_key', 2, 'text', false, NULL),
        ('column', 'user_presence', 'status', 3, '{schema}.presence_status', true, NULL),
        ('column', 'user_presence', 'is_online', 4, 'boolean', true, NULL),
        ('column', 'user_presence', 'last_seen', 5, 'timestamp with time zone', false, NULL),
        ('column', 'user_presence', 'changed_at', 6, 'timestamp with time zone', true, NULL),
        ('column', 'user_presence', 'seq', 7, 'bigint', true, NULL),
        ('column', 'user_presence', 'idle_since', 8, 'timestamp with time zone', false, NULL),
        ('column', 'user_presence', 'status_text', 9, 'text', false, NULL),
        ('column', 'user_presence', 'emoji', 10, 'text', false, NULL),
        ('column', 'user_presence', 'status_expires_at', 11, 'timestamp with time zone', false, NULL),
        ('column', 'presence_changes', 'seq', 1, 'bigint', true, NULL),
        ('column', 'presence_changes', 'user_id', 2, 'uuid', false, NULL),
        ('column', 'presence_changes', 'user_key', 3, 'text', false, NULL),
        ('column', 'presence_changes', 'status', 4, '{schema}.presence_status', true, NULL),
        ('column', 'presence_changes', 'previous', 5, '{schema}.presence_status', true, NULL),
        ('column', 'presence_changes', 'changed_at', 6, 'timestamp with time zone', true, NULL),
        ('column', 'presence_changes', 'last_seen', 7, 'timestamp with time zone', false, NULL),
        ('column', 'presence_changes', 'reason', 8, 'text', true, NULL),
        ('column', 'presence_changes', 'details', 9, 'boolean', true, 'false'),
        ('column', '_feed_state', 'epoch', 1, 'text', true, NULL),
        ('column', '_feed_state', 'seq', 2, 'bigint', true, NULL),
        ('column', '_feed_state', 'oldest_seq', 3, 'bigint', true, NULL),
        ('column', '_feed_state', 'origin', 4, 'text', false, NULL),
        ('column', 'declared_statuses', 'user_id', 1, 'uuid', true,
            'CASE WHEN (NOT {schema}.is_service()) THEN {schema}.presence_user_id() ELSE NULL::uuid END'),
        ('column', 'declared_statuses', 'source', 2, 'text', true, '''manual''::text'),
        ('column', 'declared_statuses', 'status', 3, 'text', false, NULL),
        ('column', 'declared_statuses', 'status_text', 4, 'text', false, NULL),
        ('column', 'declared_statuses', 'emoji', 5, 'text', false, NULL),
        ('column', 'declared_statuses', 'set_at', 6, 'timestamp with time zone', true, 'clock_timestamp()'),
        ('column', 'declared_statuses', 'expires_at', 7, 'timestamp with time zone', false, NULL),
        ('column', 'declared_statuses', 'by_user', 8, 'boolean', true, 'false'),
        ('column', 'declared_statuses', 'last_seen', 9, 'timestamp with time zone', false, NULL),
        ('column', 'declared_statuses', 'shown_at', 10, 'timestamp with time zone', false, NULL),

        ('constraint', 'user_sessions', 'user_sessions_pkey', 1, 'PRIMARY KEY (id)', true, NULL),
        ('constraint', 'user_sessions', 'user_sessions_session_token_check', 2,
            'CHECK (((octet_length(session_token) = 71) AND '
            '(rtrim(textsend(session_token), textsend(''0123456789abcdef''::text)) = textsend(''sha256:''::text))))',
            true, NULL),
        ('constraint', 'user_sessions', 'user_sessions_metadata_check', 3,
            'CHECK (((jsonb_typeof(metadata) = ''object''::text) AND (pg_column_size(metadata) <= 8192)))', true, NULL),
        ('constraint', 'user_presence', 'user_presence_pkey', 4, 'PRIMARY KEY (user_id)', true, NULL),
        ('constraint', 'presence_changes', 'presence_changes_pkey', 5, 'PRIMARY KEY (seq)', true, NULL),
        ('constraint', 'declared_statuses', 'declared_statuses_pkey', 6, 'PRIMARY KEY (user_id, source)', true, NULL),
        ('constraint', 'declared_statuses', 'declared_statuses_source_check', 7,
            'CHECK (((octet_length(source) >= 1) AND (octet_length(source) <= 63)))', true, NULL),
        ('constraint', 'declared_statuses', 'declared_statuses_status_check', 8,
            'CHECK ((status = ANY (ARRAY[''busy''::text, ''away''::text, ''available''::text, ''invisible''::text])))', true, NULL),
        ('constraint', 'declared_statuses', 'declared_statuses_status_text_check', 9,
            'CHECK (((char_length(status_text) >= 1) AND (char_length(status_text) <= 140)))', true, NULL),
        ('constraint', 'declared_statuses', 'declared_statuses_emoji_check', 10,
            'CHECK (((octet_length(emoji) >= 1) AND (octet_length(emoji) <= 64)))', true, NULL),
        ('constraint', 'declared_statuses', 'declared_statuses_check', 11,
            'CHECK (((status IS NOT NULL) OR (status_text IS NOT NULL) OR (emoji IS NOT NULL)))', true, NULL),
        ('constraint', 'declared_statuses', 'declared_statuses_visibility_check', 12,
            'CHECK ((((source = ''visibility''::text) AND (status IS NOT NULL) AND (status = ''invisible''::text) '
            'AND (status_text IS NULL) AND (emoji IS NULL)) OR ((source <> ''visibility''::text) '
            'AND ((status IS NULL) OR (status <> ''invisible''::text)) AND (NOT by_user) AND (last_seen IS NULL) AND (shown_at IS NULL))))', true, NULL),

        -- Indexes: what follows the name of the table, and whether it is unique.
        ('index', 'user_sessions', 'user_sessions_session_token_key', 1,
            'USING btree (session_token) WHERE (ended_at IS NULL)', true, NULL),
        ('index', 'user_sessions', 'user_sessions_session_token_idx', 2, 'USING hash (session_token)', false, NULL),
        ('index', 'user_sessions', 'user_sessions_user_id_idx', 3, 'USING btree (user_id, ended_at)', false, NULL),
        ('index', 'user_sessions', 'user_sessions_auth_id_idx', 4, 'USING btree (auth_id)', false, NULL),
        ('index', 'user_presence', 'user_presence_user_key_idx', 5, 'USING hash (user_key)', false, NULL),
        ('index', 'declared_statuses', 'declared_statuses_expires_at_idx', 6,
            'USING btree (expires_at) WHERE (expires_at IS NOT NULL)', false, NULL),
        ('index', 'declared_statuses', 'declared_statuses_visibility_idx', 7,
            'USING btree (user_id) WHERE (source = ''visibility''::text)', false, NULL),

        -- Triggers: when they fire, whether ALWAYS, and the function.
        ('trigger', 'user_sessions', 'presence_before_write', 1, 'BEFORE INSERT OR UPDATE ON {schema}.user_sessions FOR EACH ROW',
            false, '_before_write'),
        ('trigger', 'user_sessions', 'presence_capture', 2,
            'AFTER INSERT OR DELETE OR UPDATE ON {schema}.user_sessions FOR EACH ROW', true, '_capture'),
        ('trigger', 'user_sessions', 'presence_capture_truncate', 3,
            'AFTER TRUNCATE ON {schema}.user_sessions FOR EACH STATEMENT', true, '_capture'),
        ('trigger', 'user_presence', 'presence_restore', 4, 'BEFORE INSERT ON {schema}.user_presence FOR EACH ROW',
            false, '_restore'),
        ('trigger', 'user_presence', 'presence_compare', 5,
            'AFTER INSERT OR DELETE OR UPDATE OR TRUNCATE ON {schema}.user_presence FOR EACH STATEMENT', true, '_compare'),
        ('trigger', 'user_sessions', 'presence_before_truncate', 6,
            'BEFORE TRUNCATE ON {schema}.user_sessions FOR EACH STATEMENT', false, '_before_truncate'),
        ('trigger', 'user_presence', 'presence_before_truncate', 7,
            'BEFORE TRUNCATE ON {schema}.user_presence FOR EACH STATEMENT', false, '_before_truncate'),
        ('trigger', 'presence_changes', 'presence_before_truncate', 8,
            'BEFORE TRUNCATE ON {schema}.presence_changes FOR EACH STATEMENT', false, '_before_truncate'),
        ('trigger', '_feed_state', 'presence_before_truncate', 9,
            'BEFORE TRUNCATE ON {schema}._feed_state FOR EACH STATEMENT', false, '_before_truncate'),
        ('trigger', 'declared_statuses', 'presence_before_truncate', 10,
            'BEFORE TRUNCATE ON {schema}.declared_statuses FOR EACH STATEMENT', false, '_before_truncate'),
        ('trigger', 'declared_statuses', 'presence_before_write', 11,
            'BEFORE INSERT OR UPDATE ON {schema}.declared_statuses FOR EACH ROW', false, '_before_declare'),
        ('trigger', 'declared_statuses', 'presence_capture', 12,
            'AFTER INSERT OR DELETE OR UPDATE ON {schema}.declared_statuses FOR EACH ROW', true, '_capture_declared'),
        ('trigger', 'declared_statuses', 'presence_capture_truncate', 13,
            'AFTER TRUNCATE ON {schema}.declared_statuses FOR EACH STATEMENT', true, '_capture_declared'),

        ('policy', 'user_sessions', 'own_or_service_select', 1, 'FOR SELECT USING ({own})', true, NULL),
        ('policy', 'user_sessions', 'own_or_service_insert', 2, 'FOR INSERT WITH CHECK ({own})', true, NULL),
        ('policy', 'user_sessions', 'own_or_service_update', 3, 'FOR UPDATE USING ({own}) WITH CHECK ({own})', true, NULL),
        ('policy', 'user_sessions', 'own_or_service_delete', 4, 'FOR DELETE USING ({own})', true, NULL),
        ('policy', 'user_presence', 'readers_select', 5, 'FOR SELECT USING (true)', true, NULL),
        ('policy', 'presence_changes', 'readers_select', 6, 'FOR SELECT USING (true)', true, NULL),
        ('policy', 'declared_statuses', 'own_or_service_select', 7, 'FOR SELECT USING ({own_user})', true, NULL),
        ('policy', 'declared_statuses', 'service_insert', 8, 'FOR INSERT WITH CHECK ({service})', true, NULL),
        ('policy', 'declared_statuses', 'service_update', 9, 'FOR UPDATE USING ({service}) WITH CHECK ({service})', true, NULL),
        ('policy', 'declared_statuses', 'service_delete', 10, 'FOR DELETE USING ({service})', true, NULL)
    )
    SELECT d.relation, f.oid, d.name, d.place,
           replace(replace(replace(replace(d.definition,
               '{own}', '({service} OR (auth_id = ( SELECT {schema}.presence_auth_id() AS presence_auth_id)))'),
               '{own_user}', '({service} OR (user_id = ( SELECT {schema}.presence_user_id() AS presence_user_id)))'),
               '{service}', '( SELECT {schema}.is_service() AS is_service)'), '{schema}', e.home),
           d.required, replace(d.fallback, '{schema}', e.home)
      FROM definition d
      JOIN found f ON f.name = d.relation,
           extension e
     WHERE d.kind = wanted
     ORDER BY array_position(ARRAY['user_sessions', 'user_presence', 'presence_changes', '_feed_state',
                                        'declared_statuses'], d.relation),
              d.place
$function$;

-- Returns a definition as pg_get_expr() and its kin describe it, comparable with the expected one: on one line, and with
-- the expected names of tables and columns where those of `relid` were renamed.
CREATE FUNCTION @extschema@._comparable(described pg_catalog.text, relid pg_catalog.oid)
RETURNS pg_catalog.text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off
SET standard_conforming_strings = on
AS $function$
DECLARE
    home text := (SELECT e.extnamespace::regnamespace::text FROM pg_extension e WHERE e.extname = 'pg_presence');
    renamed record;
BEGIN
    described := btrim(regexp_replace(described, '\s+', ' ', 'g'));
    FOR renamed IN EXECUTE format('SELECT * FROM %s._renamed_columns() r WHERE r.relid = $1', home) USING relid LOOP
        described := regexp_replace(described,
            '(^|\W)' || regexp_replace(quote_ident(renamed.found), '(\W)', '\\\1', 'g') || '($|\W)',
            '\1' || renamed.name || '\2', 'g');
    END LOOP;
    RETURN described;
END
$function$;

-- Columns that have another name: the column in the place of one whose name does not exist.
CREATE FUNCTION @extschema@._renamed_columns()
RETURNS TABLE (relid pg_catalog.oid, name pg_catalog.text, found pg_catalog.text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off
SET standard_conforming_strings = on
AS $function$
DECLARE
    home text := (SELECT e.extnamespace::regnamespace::text FROM pg_extension e WHERE e.extname = 'pg_presence');
BEGIN
    RETURN QUERY EXECUTE format($query$
        WITH expected AS (SELECT * FROM %s._definitions('column'))
        SELECT x.relid, x.name, a.attname::text
          FROM expected x
          JOIN pg_attribute a ON a.attrelid = x.relid AND a.attnum = x.place AND NOT a.attisdropped
         WHERE NOT EXISTS (SELECT FROM pg_attribute o
                            WHERE o.attrelid = x.relid AND o.attname = x.name AND NOT o.attisdropped)
           AND NOT EXISTS (SELECT FROM expected o WHERE o.relid = x.relid AND o.name = a.attname)
    $query$, home);
END
$function$;
