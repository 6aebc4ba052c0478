-- What happens to rows on their way in.

-- Corrects rows. Ordinary, so that it leaves alone what replication brings: that has been corrected where it comes from.
CREATE TRIGGER presence_before_write
    BEFORE INSERT OR UPDATE ON @extschema@.user_sessions
    FOR EACH ROW EXECUTE FUNCTION @extschema@._before_write();

-- Feed the roster, at commit. ALWAYS, because what replication brings counts as well.
CREATE TRIGGER presence_capture
    AFTER INSERT OR UPDATE OR DELETE ON @extschema@.user_sessions
    FOR EACH ROW EXECUTE FUNCTION @extschema@._capture();

CREATE TRIGGER presence_capture_truncate
    AFTER TRUNCATE ON @extschema@.user_sessions
    FOR EACH STATEMENT EXECUTE FUNCTION @extschema@._capture();

ALTER TABLE @extschema@.user_sessions ENABLE ALWAYS TRIGGER presence_capture;
ALTER TABLE @extschema@.user_sessions ENABLE ALWAYS TRIGGER presence_capture_truncate;

-- Leaves out dumped rows of users of whom the worker has written a newer one by the time they are restored.
CREATE TRIGGER presence_restore
    BEFORE INSERT ON @extschema@.user_presence
    FOR EACH ROW EXECUTE FUNCTION @extschema@._restore();
