-- Triggers of the tables.

-- Checks and completes rows. Does not fire for replicated rows, which the trigger has corrected on the publisher.
CREATE TRIGGER presence_before_write
    BEFORE INSERT OR UPDATE ON @extschema@.user_sessions
    FOR EACH ROW EXECUTE FUNCTION @extschema@._before_write();

-- Apply writes to the roster at commit. ENABLE ALWAYS, as replicated rows count too.
CREATE TRIGGER presence_capture
    AFTER INSERT OR UPDATE OR DELETE ON @extschema@.user_sessions
    FOR EACH ROW EXECUTE FUNCTION @extschema@._capture();

CREATE TRIGGER presence_capture_truncate
    AFTER TRUNCATE ON @extschema@.user_sessions
    FOR EACH STATEMENT EXECUTE FUNCTION @extschema@._capture();

ALTER TABLE @extschema@.user_sessions ENABLE ALWAYS TRIGGER presence_capture;
ALTER TABLE @extschema@.user_sessions ENABLE ALWAYS TRIGGER presence_capture_truncate;

-- The same of what is declared.
CREATE TRIGGER presence_before_write
    BEFORE INSERT OR UPDATE ON @extschema@.declared_statuses
    FOR EACH ROW EXECUTE FUNCTION @extschema@._before_declare();

CREATE TRIGGER presence_capture
    AFTER INSERT OR UPDATE OR DELETE ON @extschema@.declared_statuses
    FOR EACH ROW EXECUTE FUNCTION @extschema@._capture_declared();

CREATE TRIGGER presence_capture_truncate
    AFTER TRUNCATE ON @extschema@.declared_statuses
    FOR EACH STATEMENT EXECUTE FUNCTION @extschema@._capture_declared();

ALTER TABLE @extschema@.declared_statuses ENABLE ALWAYS TRIGGER presence_capture;
ALTER TABLE @extschema@.declared_statuses ENABLE ALWAYS TRIGGER presence_capture_truncate;

-- Row-level security does not apply to TRUNCATE, so these check who truncates.
CREATE TRIGGER presence_before_truncate BEFORE TRUNCATE ON @extschema@.user_sessions
    FOR EACH STATEMENT EXECUTE FUNCTION @extschema@._before_truncate();
CREATE TRIGGER presence_before_truncate BEFORE TRUNCATE ON @extschema@.user_presence
    FOR EACH STATEMENT EXECUTE FUNCTION @extschema@._before_truncate();
CREATE TRIGGER presence_before_truncate BEFORE TRUNCATE ON @extschema@.presence_changes
    FOR EACH STATEMENT EXECUTE FUNCTION @extschema@._before_truncate();
CREATE TRIGGER presence_before_truncate BEFORE TRUNCATE ON @extschema@._feed_state
    FOR EACH STATEMENT EXECUTE FUNCTION @extschema@._before_truncate();
CREATE TRIGGER presence_before_truncate BEFORE TRUNCATE ON @extschema@.declared_statuses
    FOR EACH STATEMENT EXECUTE FUNCTION @extschema@._before_truncate();

-- Skips the dumped row of a user if, by the time it is restored, the worker has written a newer one.
CREATE TRIGGER presence_restore
    BEFORE INSERT ON @extschema@.user_presence
    FOR EACH ROW EXECUTE FUNCTION @extschema@._restore();

-- Sees what others than the extension write, so that the worker writes what is missing or wrong then.
CREATE TRIGGER presence_compare
    AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON @extschema@.user_presence
    FOR EACH STATEMENT EXECUTE FUNCTION @extschema@._compare();

ALTER TABLE @extschema@.user_presence ENABLE ALWAYS TRIGGER presence_compare;

-- Marks them as the owner's: other triggers on these tables are not fired by what the extension writes. Those that the
-- owner or a superuser creates later are marked when they are created.
ALTER TRIGGER presence_before_write ON @extschema@.user_sessions DEPENDS ON EXTENSION pg_presence;
ALTER TRIGGER presence_capture ON @extschema@.user_sessions DEPENDS ON EXTENSION pg_presence;
ALTER TRIGGER presence_capture_truncate ON @extschema@.user_sessions DEPENDS ON EXTENSION pg_presence;
ALTER TRIGGER presence_restore ON @extschema@.user_presence DEPENDS ON EXTENSION pg_presence;
ALTER TRIGGER presence_compare ON @extschema@.user_presence DEPENDS ON EXTENSION pg_presence;
ALTER TRIGGER presence_before_truncate ON @extschema@.user_sessions DEPENDS ON EXTENSION pg_presence;
ALTER TRIGGER presence_before_truncate ON @extschema@.user_presence DEPENDS ON EXTENSION pg_presence;
ALTER TRIGGER presence_before_truncate ON @extschema@.presence_changes DEPENDS ON EXTENSION pg_presence;
ALTER TRIGGER presence_before_truncate ON @extschema@._feed_state DEPENDS ON EXTENSION pg_presence;
ALTER TRIGGER presence_before_truncate ON @extschema@.declared_statuses DEPENDS ON EXTENSION pg_presence;
ALTER TRIGGER presence_before_write ON @extschema@.declared_statuses DEPENDS ON EXTENSION pg_presence;
ALTER TRIGGER presence_capture ON @extschema@.declared_statuses DEPENDS ON EXTENSION pg_presence;
ALTER TRIGGER presence_capture_truncate ON @extschema@.declared_statuses DEPENDS ON EXTENSION pg_presence;
