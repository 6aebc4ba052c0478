-- The last step of the install, when all objects are there.

-- Comments: one for every object, so that \d+, \df+ and whatever reads the catalogs explain it.

COMMENT ON TYPE @extschema@.presence_status IS 'A user''s status; idle and busy are not returned yet';
COMMENT ON TYPE @extschema@.presence_session IS 'A session just started, with its token: what start_session() returns';
COMMENT ON TYPE @extschema@.presence_user IS 'A user''s presence: the rows of presence_of() and online_users()';
COMMENT ON TYPE @extschema@.presence_feed_cursor IS 'A place in the feed: what presence_cursor() returns';
COMMENT ON TYPE @extschema@.presence_cleanup IS 'How many sessions cleanup_sessions() has deactivated and deleted';

COMMENT ON TABLE @extschema@.user_sessions IS 'One row per session; last_activity lags shared memory by up to presence.flush_interval';
COMMENT ON COLUMN @extschema@.user_sessions.id IS 'The session, for heartbeat() and the like';
COMMENT ON COLUMN @extschema@.user_sessions.user_id IS 'Whose session it is; presence_id(user_key) where the application''s ids are no uuids';
COMMENT ON COLUMN @extschema@.user_sessions.auth_id IS 'The identity that owns the row; by default the caller''s, else user_id';
COMMENT ON COLUMN @extschema@.user_sessions.session_token IS 'token_digest() of the token; the token itself is stored nowhere';
COMMENT ON COLUMN @extschema@.user_sessions.is_active IS 'False once timed out (ended_at is null: a heartbeat resumes it) or ended';
COMMENT ON COLUMN @extschema@.user_sessions.last_activity IS 'Last heartbeat, by the server''s clock; never goes backwards';
COMMENT ON COLUMN @extschema@.user_sessions.created_at IS 'When the session was started';
COMMENT ON COLUMN @extschema@.user_sessions.expires_at IS 'When the session ends whatever happens; by default presence.session_lifetime from now';
COMMENT ON COLUMN @extschema@.user_sessions.metadata IS 'What the application notes about the session: an object of at most 8 kB';
COMMENT ON COLUMN @extschema@.user_sessions.ended_at IS 'When logout or expiry ended the session for good; null until then';
COMMENT ON COLUMN @extschema@.user_sessions.user_key IS 'The application''s own id of the user, where that is no uuid';
COMMENT ON TRIGGER presence_before_write ON @extschema@.user_sessions IS 'Corrects what plain SQL writes';
COMMENT ON TRIGGER presence_capture ON @extschema@.user_sessions IS 'Tells shared memory at commit what was written; must stay ENABLE ALWAYS';
COMMENT ON TRIGGER presence_capture_truncate ON @extschema@.user_sessions IS 'Tells shared memory at commit of a TRUNCATE; must stay ENABLE ALWAYS';

COMMENT ON TABLE @extschema@.user_presence IS 'One row per user ever seen, written when the visible status changes';
COMMENT ON COLUMN @extschema@.user_presence.user_id IS 'The user';
COMMENT ON COLUMN @extschema@.user_presence.user_key IS 'The application''s own id of the user, where that is no uuid';
COMMENT ON COLUMN @extschema@.user_presence.status IS 'The status last told';
COMMENT ON COLUMN @extschema@.user_presence.is_online IS 'Whether that status is other than inactive';
COMMENT ON COLUMN @extschema@.user_presence.last_seen IS 'Last activity as of this change; while the user is online, ask last_seen()';
COMMENT ON COLUMN @extschema@.user_presence.changed_at IS 'When the status changed';
COMMENT ON COLUMN @extschema@.user_presence.seq IS 'The change that wrote this row';

COMMENT ON TRIGGER presence_restore ON @extschema@.user_presence IS 'Leaves out dumped rows where there is a newer one';

COMMENT ON TABLE @extschema@.presence_changes IS 'The feed: every visible change, kept for presence.feed_retention';
COMMENT ON COLUMN @extschema@.presence_changes.seq IS 'Number of the change: without gaps, in the order of commits, within an epoch';
COMMENT ON COLUMN @extschema@.presence_changes.user_id IS 'The user; null where forget_user() has erased it';
COMMENT ON COLUMN @extschema@.presence_changes.user_key IS 'The application''s own id of the user, where that is no uuid';
COMMENT ON COLUMN @extschema@.presence_changes.status IS 'The status from now on';
COMMENT ON COLUMN @extschema@.presence_changes.previous IS 'The status until now';
COMMENT ON COLUMN @extschema@.presence_changes.changed_at IS 'When the change was found';
COMMENT ON COLUMN @extschema@.presence_changes.last_seen IS 'The user''s last activity then';
COMMENT ON COLUMN @extschema@.presence_changes.reason IS 'started, resumed, ended, released, timed_out, expired, deleted or recovered';

COMMENT ON TABLE @extschema@._feed_state IS 'Where the feed stands: one row, the worker''s';
COMMENT ON COLUMN @extschema@._feed_state.epoch IS 'Names one unbroken line of sequence numbers';
COMMENT ON COLUMN @extschema@._feed_state.seq IS 'Number of the last change';
COMMENT ON COLUMN @extschema@._feed_state.oldest_seq IS 'Number of the oldest change that is kept, or of the next one';
COMMENT ON COLUMN @extschema@._feed_state.origin IS 'The server, timeline and table that the epoch belongs to';

COMMENT ON VIEW @extschema@.presence_stats IS 'What presence does in this database, and how its worker is: one row';

COMMENT ON FUNCTION @extschema@.start_session(pg_catalog.uuid, pg_catalog.text, pg_catalog.jsonb, pg_catalog.text, pg_catalog.interval, pg_catalog.uuid)
    IS 'Starts a session, or resumes the one with the same token; returns the token, here only';
COMMENT ON FUNCTION @extschema@.start_sessions(pg_catalog.uuid[], pg_catalog.text[], pg_catalog.text[], pg_catalog.jsonb[])
    IS 'Starts a session for each user, in order, with one commit: for gateways';
COMMENT ON FUNCTION @extschema@.heartbeat(pg_catalog.uuid)
    IS 'Keeps a session live: ok, ended (sign in again) or unknown (start one)';
COMMENT ON FUNCTION @extschema@.heartbeat_by_token(pg_catalog.text)
    IS 'Keeps the session of a token live: ok, ended or unknown';
COMMENT ON FUNCTION @extschema@.heartbeat_many(pg_catalog.uuid[])
    IS 'Keeps many sessions live; returns those that did not count';
COMMENT ON FUNCTION @extschema@.end_session(pg_catalog.uuid) IS 'Logs out: ends a session for good';
COMMENT ON FUNCTION @extschema@.end_session_by_token(pg_catalog.text) IS 'Logs out: ends the session of a token for good';
COMMENT ON FUNCTION @extschema@.end_sessions(pg_catalog.uuid[]) IS 'Ends many sessions for good; returns how many';
COMMENT ON FUNCTION @extschema@.end_user_sessions(pg_catalog.uuid)
    IS 'Signs a user out everywhere: a client itself, a service whom it names';
COMMENT ON FUNCTION @extschema@.release_session(pg_catalog.uuid, pg_catalog.interval)
    IS 'Says that a session may be going: it times out after the grace unless it beats again';
COMMENT ON FUNCTION @extschema@.release_session_by_token(pg_catalog.text, pg_catalog.interval)
    IS 'Says that the session of a token may be going: for a page that closes';
COMMENT ON FUNCTION @extschema@.release_sessions(pg_catalog.uuid[], pg_catalog.interval)
    IS 'Says that many sessions may be going: for a gateway that drains; returns how many';
COMMENT ON FUNCTION @extschema@.rotate_session_token(pg_catalog.uuid)
    IS 'Gives a session a new token and returns it; the old one stops at commit';
COMMENT ON FUNCTION @extschema@.user_status(pg_catalog.uuid) IS 'A user''s status now; inactive for a stranger';
COMMENT ON FUNCTION @extschema@.is_online(pg_catalog.uuid) IS 'Whether a user has a live session now';
COMMENT ON FUNCTION @extschema@.last_seen(pg_catalog.uuid)
    IS 'A user''s last activity: exact while online, kept after the sessions are gone; null for a stranger';
COMMENT ON FUNCTION @extschema@.presence_of(pg_catalog.uuid[], pg_catalog.text[]) IS 'The presence of each of these users, in order';
COMMENT ON FUNCTION @extschema@.online_users() IS 'The presence of every user who is online';
COMMENT ON FUNCTION @extschema@.online_count() IS 'How many users are online';
COMMENT ON FUNCTION @extschema@.presence_cursor() IS 'Where the feed stands; to be read before user_presence';
COMMENT ON FUNCTION @extschema@.changes_since(pg_catalog.int8, pg_catalog.text, pg_catalog.int4)
    IS 'The changes after this one, in order; 72000 where they are no longer kept or the epoch is another';
COMMENT ON FUNCTION @extschema@.forget_user(pg_catalog.uuid) IS 'Erases a user''s sessions and presence, and its name from the feed';
COMMENT ON FUNCTION @extschema@.cleanup_sessions() IS 'The worker''s cleaning, by hand';
COMMENT ON FUNCTION @extschema@.presence_health() IS 'What to look at when something seems wrong, and what to do about it';
COMMENT ON FUNCTION @extschema@._stats() IS 'The figures of the view presence_stats';
COMMENT ON FUNCTION @extschema@.grant_holder(pg_catalog.regrole) IS 'Lets a role act for the session whose token it has';
COMMENT ON FUNCTION @extschema@.grant_client(pg_catalog.regrole) IS 'Lets a role act for its own identity';
COMMENT ON FUNCTION @extschema@.grant_reader(pg_catalog.regrole) IS 'Lets a role see everybody''s status';
COMMENT ON FUNCTION @extschema@.grant_service(pg_catalog.regrole) IS 'Lets a role act for everybody';
COMMENT ON FUNCTION @extschema@._grant_usage(pg_catalog.regrole) IS 'Lets a role look into the schema: a part of the grant_ functions';
COMMENT ON FUNCTION @extschema@.is_service() IS 'Whether the caller acts for everybody';
COMMENT ON FUNCTION @extschema@.presence_user_id() IS 'The user the caller acts for; null without an identity';
COMMENT ON FUNCTION @extschema@.presence_auth_id() IS 'The caller''s identity: the claim, or without claims presence.user_id; null without one';
COMMENT ON FUNCTION @extschema@.presence_id(pg_catalog.text) IS 'The user id of a user known by a text';
COMMENT ON FUNCTION @extschema@.presence_id(pg_catalog.int8) IS 'The user id of a user known by an integer';
COMMENT ON FUNCTION @extschema@.token_digest(pg_catalog.text) IS 'What user_sessions.session_token holds for a token';
COMMENT ON FUNCTION @extschema@._service_marker() IS 'Does nothing: a role that may execute it is a service';
COMMENT ON FUNCTION @extschema@._start_worker() IS 'Asks for a worker at commit: a part of the install';
COMMENT ON FUNCTION @extschema@._before_write() IS 'Trigger: corrects what plain SQL writes to user_sessions';
COMMENT ON FUNCTION @extschema@._restore() IS 'Trigger: leaves out dumped rows of user_presence where there is a newer one';
COMMENT ON FUNCTION @extschema@._capture() IS 'Trigger: tells shared memory at commit what was written to user_sessions';

-- Privileges: nobody but the owner has a right on anything of ours, but for those given here.
--
-- Default privileges (ALTER DEFAULT PRIVILEGES, as Supabase sets them) have by now granted TRUNCATE on new tables and
-- EXECUTE on new functions to whole groups; PostgreSQL itself grants EXECUTE to PUBLIC. Both go.

DO LANGUAGE plpgsql $privileges$
DECLARE
    statement pg_catalog.text;
BEGIN
    FOR statement IN
        WITH member AS (
            SELECT d.classid, d.objid
              FROM pg_catalog.pg_depend d
              JOIN pg_catalog.pg_extension e ON e.oid OPERATOR(pg_catalog.=) d.refobjid
             WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
               AND d.deptype OPERATOR(pg_catalog.=) 'e'
               AND e.extname OPERATOR(pg_catalog.=) 'pg_presence'
        ), granted AS (
            SELECT pg_catalog.format('TABLE %s', c.oid::pg_catalog.regclass) AS object, a.grantee
              FROM member m
              JOIN pg_catalog.pg_class c
                ON m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
               AND c.oid OPERATOR(pg_catalog.=) m.objid,
                   LATERAL pg_catalog.aclexplode(c.relacl) a
             WHERE c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'v']::pg_catalog."char"[])
               AND a.grantee OPERATOR(pg_catalog.<>) c.relowner
            UNION
            SELECT pg_catalog.format('FUNCTION %s', p.oid::pg_catalog.regprocedure), a.grantee
              FROM member m
              JOIN pg_catalog.pg_proc p
                ON m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
               AND p.oid OPERATOR(pg_catalog.=) m.objid,
                   LATERAL pg_catalog.aclexplode(
                       COALESCE(p.proacl, pg_catalog.acldefault('f'::pg_catalog."char", p.proowner))) a
             WHERE a.grantee OPERATOR(pg_catalog.<>) p.proowner
        )
        SELECT pg_catalog.format('REVOKE ALL ON %s FROM %s', object,
                   CASE WHEN grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
                        ELSE grantee::pg_catalog.regrole::pg_catalog.text END)
          FROM granted
    LOOP
        EXECUTE statement;
    END LOOP;
END
$privileges$;

-- For all: who they are, and what tells nothing.
GRANT EXECUTE ON FUNCTION
    @extschema@.is_service(),
    @extschema@.presence_user_id(),
    @extschema@.presence_auth_id(),
    @extschema@.presence_id(pg_catalog.text),
    @extschema@.presence_id(pg_catalog.int8),
    @extschema@.token_digest(pg_catalog.text)
    TO PUBLIC;

GRANT EXECUTE ON FUNCTION @extschema@.presence_health(), @extschema@._stats() TO pg_monitor;
GRANT SELECT ON TABLE @extschema@.presence_stats TO pg_monitor;
DO LANGUAGE plpgsql $monitor$
BEGIN
    PERFORM @extschema@._grant_usage('pg_monitor'::pg_catalog.regrole);
END
$monitor$;

-- The roles of Supabase and its like, where they are.
DO LANGUAGE plpgsql $supabase$
BEGIN
    IF pg_catalog.to_regrole('anon') IS NOT NULL THEN
        PERFORM @extschema@.grant_holder('anon'::pg_catalog.regrole);
    END IF;
    IF pg_catalog.to_regrole('authenticated') IS NOT NULL THEN
        PERFORM @extschema@.grant_holder('authenticated'::pg_catalog.regrole);
        PERFORM @extschema@.grant_client('authenticated'::pg_catalog.regrole);
        PERFORM @extschema@.grant_reader('authenticated'::pg_catalog.regrole);
    END IF;
    IF pg_catalog.to_regrole('service_role') IS NOT NULL THEN
        PERFORM @extschema@.grant_service('service_role'::pg_catalog.regrole);
    END IF;
END
$supabase$;
