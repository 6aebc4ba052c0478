-- Row level security. The tables' owner, as whom the extension's own statements run, is not bound by it.

ALTER TABLE @extschema@.user_sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE @extschema@.user_presence ENABLE ROW LEVEL SECURITY;
ALTER TABLE @extschema@.presence_changes ENABLE ROW LEVEL SECURITY;
ALTER TABLE @extschema@._feed_state ENABLE ROW LEVEL SECURITY;

-- Sessions: a service sees and writes all, everybody else their own. The sub-selects are evaluated once per statement.

CREATE POLICY own_or_service_select ON @extschema@.user_sessions FOR SELECT
    USING ((SELECT @extschema@.is_service())
           OR auth_id OPERATOR(pg_catalog.=) (SELECT @extschema@.presence_auth_id()));

CREATE POLICY own_or_service_insert ON @extschema@.user_sessions FOR INSERT
    WITH CHECK ((SELECT @extschema@.is_service())
                OR auth_id OPERATOR(pg_catalog.=) (SELECT @extschema@.presence_auth_id()));

CREATE POLICY own_or_service_update ON @extschema@.user_sessions FOR UPDATE
    USING ((SELECT @extschema@.is_service())
           OR auth_id OPERATOR(pg_catalog.=) (SELECT @extschema@.presence_auth_id()))
    WITH CHECK ((SELECT @extschema@.is_service())
                OR auth_id OPERATOR(pg_catalog.=) (SELECT @extschema@.presence_auth_id()));

CREATE POLICY own_or_service_delete ON @extschema@.user_sessions FOR DELETE
    USING ((SELECT @extschema@.is_service())
           OR auth_id OPERATOR(pg_catalog.=) (SELECT @extschema@.presence_auth_id()));

-- Statuses and the feed: whoever is granted SELECT, which is what makes a reader. The state is nobody's but the owner's.

CREATE POLICY readers_select ON @extschema@.user_presence FOR SELECT USING (true);
CREATE POLICY readers_select ON @extschema@.presence_changes FOR SELECT USING (true);
