-- Row-level security. It does not apply to the owner of the tables, as whom the extension's own statements run.

ALTER TABLE @extschema@.user_sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE @extschema@.user_presence ENABLE ROW LEVEL SECURITY;
ALTER TABLE @extschema@.presence_changes ENABLE ROW LEVEL SECURITY;
ALTER TABLE @extschema@._feed_state ENABLE ROW LEVEL SECURITY;
ALTER TABLE @extschema@.declared_statuses ENABLE ROW LEVEL SECURITY;

-- Sessions: services can access all rows, other roles their own. The sub-selects are evaluated once per statement.

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

-- Statuses and the feed: every role with the SELECT privilege, which readers have. _feed_state: the owner only.

CREATE POLICY readers_select ON @extschema@.user_presence FOR SELECT USING (true);
CREATE POLICY readers_select ON @extschema@.presence_changes FOR SELECT USING (true);

-- What is declared: everybody can read their own rows. Clients write with functions, which run as the owner.

CREATE POLICY own_or_service_select ON @extschema@.declared_statuses FOR SELECT
    USING ((SELECT @extschema@.is_service())
           OR user_id OPERATOR(pg_catalog.=) (SELECT @extschema@.presence_user_id()));

CREATE POLICY service_insert ON @extschema@.declared_statuses FOR INSERT
    WITH CHECK ((SELECT @extschema@.is_service()));

CREATE POLICY service_update ON @extschema@.declared_statuses FOR UPDATE
    USING ((SELECT @extschema@.is_service()))
    WITH CHECK ((SELECT @extschema@.is_service()));

CREATE POLICY service_delete ON @extschema@.declared_statuses FOR DELETE
    USING ((SELECT @extschema@.is_service()));
