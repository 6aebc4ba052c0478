//! Who may do what, as tables: the security model of the extension, line by line.
//!
//! A role's privilege is one letter: `-` none (42501), `o` on its own sessions, `a` on anybody's. The columns: nobody,
//! holder, client, reader, service, a client with BYPASSRLS, pg_monitor. A result that starts with `!` is a SQLSTATE.

pub const DENIED: &str = "!42501";

/// A function: the call, who may call it, its result for a session that is live, silent, ended and unknown, and its result
/// for a client whose session or user it is not.
#[rustfmt::skip]
pub const CALLS: &[(&str, &str, [&str; 4], &str)] = &[
    ("heartbeat('{id}')", "--o-aa-", ["ok", "ok", "ended", "unknown"], "unknown"),
    ("heartbeat_many('{{id}}')", "--o-aa-", ["{}", "{}", "{{id}}", "{{id}}"], "{{id}}"),
    ("heartbeat_by_token('{token}')", "-a--a--", ["ok", "ok", "ended", "unknown"], ""),
    ("end_session('{id}')", "--o-aa-", ["true", "true", "false", "false"], "false"),
    ("end_sessions('{{id}}')", "--o-aa-", ["1", "1", "0", "0"], "0"),
    ("end_session_by_token('{token}')", "-a--a--", ["true", "true", "false", "false"], ""),
    ("end_user_sessions('{user}')", "--o-aa-", ["1", "1", "0", "0"], DENIED),
    ("release_session('{id}')", "--o-aa-", ["true", "true", "false", "false"], "false"),
    ("release_sessions('{{id}}')", "--o-aa-", ["1", "1", "0", "0"], "0"),
    ("release_session_by_token('{token}')", "-a--a--", ["true", "true", "false", "false"], ""),
    ("rotate_session_token('{id}') IS NULL", "--o-aa-", ["false", "false", "true", "true"], "true"),
    ("start_session('{user}') IS NULL", "--o-aa-", ["false"; 4], DENIED),
    (
        "start_session('{user}', session_token => '{token}') IS NULL", "--o-aa-",
        ["false", "false", DENIED, "false"], DENIED,
    ),
    ("start_sessions('{{user}}') IS NULL", "----a--", ["false"; 4], ""),
    ("is_online('{user}')", "--oaaa-", ["true", "false", "false", "false"], DENIED),
    ("user_status('{user}')", "--oaaa-", ["active", "inactive", "inactive", "inactive"], DENIED),
    ("last_seen('{user}') IS NULL", "--oaaa-", ["false", "false", "false", "true"], DENIED),
    ("presence_of('{{user}}') IS NULL", "---aa--", ["false"; 4], ""),
    ("online_users() IS NULL LIMIT 1", "---aa--", ["false"; 4], ""),
    ("online_count() IS NULL", "---aa--", ["false"; 4], ""),
    ("presence_cursor() IS NULL", "---aa--", ["false"; 4], ""),
    ("changes_since(0) IS NULL LIMIT 1", "---aa--", ["false"; 4], ""),
    ("forget_user('{user}')", "----a--", ["true", "true", "true", "false"], ""),
    ("cleanup_sessions() IS NULL", "----a--", ["false"; 4], ""),
    ("presence_health() IS NULL LIMIT 1", "----a-a", ["false"; 4], ""),
    ("_stats() IS NULL", "----a-a", ["false"; 4], ""),
    ("is_service() IS NULL", "aaaaaaa", ["false"; 4], ""),
    ("presence_user_id() OPERATOR(pg_catalog.=) '{user}' IS NOT FALSE", "aaoaaaa", ["true"; 4], ""),
    ("presence_auth_id() OPERATOR(pg_catalog.=) '{user}' IS NOT FALSE", "aaoaaaa", ["true"; 4], ""),
    ("presence_id(7) IS NULL", "aaaaaaa", ["false"; 4], ""),
    ("presence_id('{token}') IS NULL", "aaaaaaa", ["false"; 4], ""),
    ("token_digest('{token}') IS NULL", "aaaaaaa", ["false"; 4], ""),
    ("grant_holder(current_user::regrole)", "-------", [""; 4], ""),
    ("grant_client(current_user::regrole)", "-------", [""; 4], ""),
    ("grant_reader(current_user::regrole)", "-------", [""; 4], ""),
    ("grant_service(current_user::regrole)", "-------", [""; 4], ""),
    ("renew_epoch()", "-------", [""; 4], ""),
    ("_grant_usage(current_user::regrole)", "-------", [""; 4], ""),
    ("_grant_holder(current_user::regrole)", "-------", [""; 4], ""),
    ("_grant_client(current_user::regrole)", "-------", [""; 4], ""),
    ("_grant_reader(current_user::regrole)", "-------", [""; 4], ""),
    ("_grant_service(current_user::regrole)", "-------", [""; 4], ""),
    ("_start_worker()", "-------", [""; 4], ""),
    ("_before_truncate()", "-------", [""; 4], ""),
    ("_before_write()", "-------", [""; 4], ""),
    ("_capture()", "-------", [""; 4], ""),
    ("_restore()", "-------", [""; 4], ""),
];

/// A command on one session's row: who may run it, and its result for a client on its own row and on another's. Whoever may
/// run it on anybody's affects one row.
#[rustfmt::skip]
pub const ON_A_ROW: &[(&str, &str, &str, &str)] = &[
    ("SELECT FROM user_sessions WHERE id = '{id}'", "--o-aa-", "1", "0"),
    ("SELECT FROM user_sessions WHERE session_token = presence.token_digest('{token}')", "--o-aa-", "1", "0"),
    ("SELECT FROM user_sessions WHERE id = '{id}' FOR UPDATE", "--o-aa-", "1", "0"),
    ("SELECT FROM user_sessions WHERE id = '{id}' FOR SHARE", "--o-aa-", "1", "0"),
    ("UPDATE user_sessions SET metadata = '{\"a\": 1}' WHERE id = '{id}'", "--o-aa-", "1", "0"),
    ("UPDATE user_sessions SET last_activity = now() WHERE id = '{id}'", "--o-aa-", "1", "0"),
    ("UPDATE user_sessions SET is_active = false WHERE id = '{id}'", "--o-aa-", "1", "0"),
    ("UPDATE user_sessions SET is_active = true WHERE id = '{id}'", "--o-aa-", "1", "0"),
    ("UPDATE user_sessions SET user_id = gen_random_uuid() WHERE id = '{id}'", "--o-aa-", DENIED, "0"),
    ("UPDATE user_sessions SET auth_id = gen_random_uuid() WHERE id = '{id}'", "--o-aa-", DENIED, "0"),
    ("UPDATE user_sessions SET expires_at = now() + '9 y' WHERE id = '{id}'", "--o-aa-", DENIED, "0"),
    (
        "MERGE INTO user_sessions s USING (SELECT '{id}'::uuid AS it) x ON s.id = x.it
         WHEN MATCHED THEN UPDATE SET metadata = '{}'",
        "--o-aa-", "1", "0",
    ),
    (
        "MERGE INTO user_sessions s USING (SELECT '{id}'::uuid AS it) x ON s.id = x.it WHEN MATCHED THEN DELETE",
        "----a--", "", "",
    ),
    ("INSERT INTO user_sessions (user_id) VALUES ('{user}')", "--o-aa-", "1", DENIED),
    ("INSERT INTO user_sessions (user_id, auth_id) VALUES ('{user}', '{user}')", "--o-aa-", "1", DENIED),
    ("INSERT INTO user_sessions (user_id, ended_at) VALUES ('{user}', now())", "--o-aa-", "1", DENIED),
    ("DELETE FROM user_sessions WHERE id = '{id}'", "----a--", "", ""),
];

/// A command on a whole table, or on the schema: who may run it.
#[rustfmt::skip]
pub const ON_A_TABLE: &[(&str, &str)] = &[
    ("LOCK TABLE user_sessions IN ACCESS EXCLUSIVE MODE", "----a--"),
    ("LOCK TABLE user_sessions IN SHARE MODE", "----a--"),
    ("TRUNCATE user_sessions", "-------"),
    ("TRUNCATE user_presence, presence_changes, _feed_state", "-------"),
    ("SELECT FROM user_presence", "---aa--"),
    ("SELECT FROM user_presence FOR SHARE", "-------"),
    ("INSERT INTO user_presence VALUES (gen_random_uuid(), NULL, 'active', true, now(), now(), 1)", "-------"),
    ("UPDATE user_presence SET is_online = true", "-------"),
    ("DELETE FROM user_presence", "-------"),
    ("LOCK TABLE user_presence IN SHARE MODE", "-------"),
    ("SELECT FROM presence_changes", "---aa--"),
    ("SELECT FROM presence_changes FOR SHARE", "-------"),
    ("INSERT INTO presence_changes SELECT * FROM presence_changes", "-------"),
    ("UPDATE presence_changes SET reason = 'ended'", "-------"),
    ("DELETE FROM presence_changes", "-------"),
    ("LOCK TABLE presence_changes IN SHARE MODE", "-------"),
    ("SELECT FROM _feed_state", "-------"),
    ("SELECT FROM _feed_state FOR SHARE", "-------"),
    ("INSERT INTO _feed_state VALUES ('mine', 1, 1)", "-------"),
    ("UPDATE _feed_state SET seq = 0", "-------"),
    ("DELETE FROM _feed_state", "-------"),
    ("LOCK TABLE _feed_state IN SHARE MODE", "-------"),
    ("SELECT FROM presence_stats", "----a-a"),
    ("CREATE TABLE presence.mine ()", "-------"),
    ("CREATE FUNCTION presence.is_service(int) RETURNS bool LANGUAGE sql AS 'SELECT true'", "-------"),
    ("CREATE TRIGGER mine BEFORE INSERT ON user_sessions EXECUTE FUNCTION suppress_redundant_updates_trigger()", "-------"),
    (
        "CREATE TEMP TABLE mine (id uuid);
         CREATE TRIGGER mine AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION presence._capture()",
        "-------",
    ),
    (
        "CREATE TEMP TABLE mine (id uuid);
         CREATE TRIGGER mine BEFORE INSERT ON mine FOR EACH ROW EXECUTE FUNCTION presence._before_write()",
        "-------",
    ),
    ("CREATE RULE mine AS ON UPDATE TO user_sessions DO ALSO NOTHING", "-------"),
    ("CREATE POLICY mine ON user_sessions USING (true)", "-------"),
    ("CREATE INDEX mine ON user_sessions (user_id)", "-------"),
    ("CREATE TEMP TABLE mine () INHERITS (user_sessions)", "-------"),
    ("CREATE STATISTICS mine ON user_id, auth_id FROM user_sessions", "-------"),
    ("COMMENT ON TABLE user_sessions IS 'mine'", "-------"),
    ("ALTER TABLE user_sessions DISABLE ROW LEVEL SECURITY", "-------"),
    ("ALTER TABLE user_sessions DISABLE TRIGGER ALL", "-------"),
    ("ALTER TABLE user_sessions OWNER TO CURRENT_USER", "-------"),
    ("ALTER FUNCTION presence.is_service() RENAME TO was_service", "-------"),
    ("CREATE TEMP TABLE mine (service presence._service_marker)", "----a--"),
    ("GRANT USAGE ON TYPE presence._service_marker TO CURRENT_USER", "-------"),
    ("DROP TABLE user_sessions", "-------"),
    ("DROP SCHEMA presence CASCADE", "-------"),
    ("DROP EXTENSION pg_presence", "-------"),
    ("ALTER EXTENSION pg_presence DROP TABLE user_sessions", "-------"),
    ("CREATE PUBLICATION mine FOR TABLE user_sessions", "-------"),
    ("COPY user_sessions TO PROGRAM 'cat'", "-------"),
    ("SET session_replication_role = replica", "-------"),
];
