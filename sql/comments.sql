-- A comment on every object, for \d+, \dT+ and \df+, and for tools that read the catalogs.

-- Types

COMMENT ON TYPE @extschema@.presence_status IS 'Status of a user; all but inactive are online';

COMMENT ON TYPE @extschema@.presence_session IS 'Started session, as returned by start_session()';
COMMENT ON COLUMN @extschema@.presence_session.session_id IS 'ID of the session';
COMMENT ON COLUMN @extschema@.presence_session.session_token
    IS 'Token of the session; it is not stored and cannot be read again';
COMMENT ON COLUMN @extschema@.presence_session.expires_at IS 'Time at which the session ends';
COMMENT ON COLUMN @extschema@.presence_session.heartbeat_ms IS 'Interval at which to send heartbeats, in milliseconds';
COMMENT ON COLUMN @extschema@.presence_session.timeout_ms
    IS 'Time without a heartbeat after which the session times out, in milliseconds';
COMMENT ON COLUMN @extschema@.presence_session.server_time IS 'Time of the server';

COMMENT ON TYPE @extschema@.presence_user IS 'Presence of a user, as returned by presence_of() and online_users()';
COMMENT ON COLUMN @extschema@.presence_user.user_id IS 'ID of the user';
COMMENT ON COLUMN @extschema@.presence_user.user_key IS 'The application''s ID of the user, if it is not a UUID';
COMMENT ON COLUMN @extschema@.presence_user.status IS 'Current status';
COMMENT ON COLUMN @extschema@.presence_user.is_online IS 'Whether the user has a live session';
COMMENT ON COLUMN @extschema@.presence_user.last_seen IS 'Time of the last activity; null if the user is unknown';
COMMENT ON COLUMN @extschema@.presence_user.session_count IS 'Number of live sessions';
COMMENT ON COLUMN @extschema@.presence_user.idle_since
    IS 'Time at which somebody was last at one of the sessions, if all are idle';
COMMENT ON COLUMN @extschema@.presence_user.status_text IS 'Text that is declared of the user';
COMMENT ON COLUMN @extschema@.presence_user.emoji IS 'Emoji that is declared of the user';
COMMENT ON COLUMN @extschema@.presence_user.status_expires_at
    IS 'Time at which the first of the status, text and emoji that are declared ends; null if none ends by itself';

COMMENT ON TYPE @extschema@.presence_declared_status IS 'Declared status as stored, as returned by set_status()';
COMMENT ON TYPE @extschema@.presence_own IS 'What a user is and what others are shown, as returned by own_presence()';
COMMENT ON COLUMN @extschema@.presence_own.status IS 'Status, hidden or not: active, idle, busy or inactive';
COMMENT ON COLUMN @extschema@.presence_own.shown IS 'Status that others are shown';
COMMENT ON COLUMN @extschema@.presence_own.is_invisible IS 'Whether the user is hidden';
COMMENT ON COLUMN @extschema@.presence_own.status_text IS 'Text that is declared and shows';
COMMENT ON COLUMN @extschema@.presence_own.emoji IS 'Emoji that is declared and shows';
COMMENT ON COLUMN @extschema@.presence_own.status_expires_at IS 'Time at which the first of what is declared ends; null: none does';
COMMENT ON COLUMN @extschema@.presence_own.idle_since IS 'Time since which nobody is there; null: somebody is';
COMMENT ON COLUMN @extschema@.presence_own.session_count IS 'Number of live sessions';
COMMENT ON COLUMN @extschema@.presence_declared_status.user_id IS 'ID of the user';
COMMENT ON COLUMN @extschema@.presence_declared_status.source IS 'Who declares it';
COMMENT ON COLUMN @extschema@.presence_declared_status.status IS 'busy, away or available; null for a text or emoji alone';
COMMENT ON COLUMN @extschema@.presence_declared_status.status_text IS 'Text';
COMMENT ON COLUMN @extschema@.presence_declared_status.emoji IS 'Emoji';
COMMENT ON COLUMN @extschema@.presence_declared_status.set_at IS 'Time at which it was set';
COMMENT ON COLUMN @extschema@.presence_declared_status.expires_at IS 'Time from which it is not valid; null: until it is cleared';

COMMENT ON TYPE @extschema@.presence_feed_cursor IS 'Position in the feed, as returned by presence_cursor()';
COMMENT ON COLUMN @extschema@.presence_feed_cursor.epoch IS 'Epoch of the feed';
COMMENT ON COLUMN @extschema@.presence_feed_cursor.seq IS 'Sequence number of the last change';

COMMENT ON TYPE @extschema@.presence_cleanup IS 'Numbers of sessions, as returned by cleanup_sessions()';
COMMENT ON COLUMN @extschema@.presence_cleanup.deactivated IS 'Number of sessions marked as not active';
COMMENT ON COLUMN @extschema@.presence_cleanup.deleted IS 'Number of sessions deleted';

COMMENT ON DOMAIN @extschema@._service_marker IS 'A role with the USAGE privilege on it is a service';

COMMENT ON TYPE @extschema@._stats_row IS 'Statistics, as returned by _stats()';
COMMENT ON COLUMN @extschema@._stats_row.live_sessions IS 'Number of live sessions';
COMMENT ON COLUMN @extschema@._stats_row.known_sessions IS 'Number of sessions in shared memory that have not ended';
COMMENT ON COLUMN @extschema@._stats_row.users_online IS 'Number of users with a live session';
COMMENT ON COLUMN @extschema@._stats_row.known_users IS 'Number of users in shared memory';
COMMENT ON COLUMN @extschema@._stats_row.capacity IS 'Number of slots for sessions in shared memory, for all databases';
COMMENT ON COLUMN @extschema@._stats_row.used IS 'Number of slots in use, by all databases';
COMMENT ON COLUMN @extschema@._stats_row.is_complete IS 'Whether all sessions that have not ended are in shared memory';
COMMENT ON COLUMN @extschema@._stats_row.in_overflow
    IS 'Whether sessions are missing from shared memory because it was full';
COMMENT ON COLUMN @extschema@._stats_row.overflowed IS 'Number of writes for which shared memory had no room';
COMMENT ON COLUMN @extschema@._stats_row.evicted
    IS 'Number of timed-out sessions evicted from shared memory to make room';
COMMENT ON COLUMN @extschema@._stats_row.slow_calls IS 'Number of calls that had to access the tables';
COMMENT ON COLUMN @extschema@._stats_row.beats IS 'Number of heartbeats';
COMMENT ON COLUMN @extschema@._stats_row.rejected_beats
    IS 'Number of heartbeats for sessions that had ended or did not exist';
COMMENT ON COLUMN @extschema@._stats_row.unwritten_users
    IS 'Number of users whose status may have changed and is yet to be written';
COMMENT ON COLUMN @extschema@._stats_row.changes IS 'Number of changes written';
COMMENT ON COLUMN @extschema@._stats_row.notifications IS 'Number of notifications sent';
COMMENT ON COLUMN @extschema@._stats_row.flushed_rows IS 'Number of rows whose last_activity was flushed';
COMMENT ON COLUMN @extschema@._stats_row.deactivated_rows IS 'Number of rows marked as not active';
COMMENT ON COLUMN @extschema@._stats_row.deleted_rows IS 'Number of rows deleted';
COMMENT ON COLUMN @extschema@._stats_row.worker_pid IS 'Process ID of the worker; null if none is running';
COMMENT ON COLUMN @extschema@._stats_row.worker_started_at IS 'Time at which the worker started';
COMMENT ON COLUMN @extschema@._stats_row.last_tick_at IS 'Time at which the worker last completed a tick';
COMMENT ON COLUMN @extschema@._stats_row.last_flush_at IS 'Time of the last flush';
COMMENT ON COLUMN @extschema@._stats_row.last_cleanup_at IS 'Time of the last cleanup';
COMMENT ON COLUMN @extschema@._stats_row.tick_ms IS 'Duration of the last tick, in milliseconds';
COMMENT ON COLUMN @extschema@._stats_row.flush_ms IS 'Duration of the last flush, in milliseconds';
COMMENT ON COLUMN @extschema@._stats_row.cleanup_ms IS 'Duration of the last cleanup, in milliseconds';
COMMENT ON COLUMN @extschema@._stats_row.oldest_unflushed_ms
    IS 'Age of the oldest activity that is yet to be flushed, in milliseconds';
COMMENT ON COLUMN @extschema@._stats_row.oldest_unwritten_ms
    IS 'Time for which the oldest change of status has waited to be written, in milliseconds; null if none waits';
COMMENT ON COLUMN @extschema@._stats_row.set_aside
    IS 'Number of rows and users that wait because they could not be written';
COMMENT ON COLUMN @extschema@._stats_row.last_error IS 'Last error that the worker met: what it was doing, SQLSTATE, message';
COMMENT ON COLUMN @extschema@._stats_row.last_error_at IS 'Time of the last error that the worker met';

COMMENT ON TYPE @extschema@._definition IS 'Definition of an object, as returned by _definitions()';
COMMENT ON COLUMN @extschema@._definition.relation IS 'Name of the table';
COMMENT ON COLUMN @extschema@._definition.relid IS 'OID of the table; null if it does not exist';
COMMENT ON COLUMN @extschema@._definition.name IS 'Name of the object';
COMMENT ON COLUMN @extschema@._definition.place IS 'Number of the object among those of its kind; of a column, in its table';
COMMENT ON COLUMN @extschema@._definition.definition
    IS 'Definition; of a column, its type; of a table, its replica identity';
COMMENT ON COLUMN @extschema@._definition.required
    IS 'Whether a column is NOT NULL, an index is unique, or a trigger is enabled ALWAYS';
COMMENT ON COLUMN @extschema@._definition.fallback IS 'Default of a column, or function of a trigger';

-- Table user_sessions

COMMENT ON TABLE @extschema@.user_sessions
    IS 'Sessions, one row each; last_activity lags behind shared memory by up to presence.flush_interval';
COMMENT ON COLUMN @extschema@.user_sessions.id IS 'ID of the session';
COMMENT ON COLUMN @extschema@.user_sessions.user_id
    IS 'ID of the user; presence_id(user_key) if the application''s IDs are not UUIDs';
COMMENT ON COLUMN @extschema@.user_sessions.auth_id
    IS 'Identity that owns the row; by default that of the caller, or else user_id';
COMMENT ON COLUMN @extschema@.user_sessions.session_token
    IS 'Digest of the token, as returned by token_digest(); the token itself is not stored';
COMMENT ON COLUMN @extschema@.user_sessions.is_active
    IS 'Whether the session is active; false after a timeout, until the next heartbeat, and after its end';
COMMENT ON COLUMN @extschema@.user_sessions.last_activity IS 'Time of the last heartbeat; never decreases';
COMMENT ON COLUMN @extschema@.user_sessions.created_at IS 'Time at which the session started';
COMMENT ON COLUMN @extschema@.user_sessions.expires_at
    IS 'Time at which the session ends; by default presence.session_lifetime after its start';
COMMENT ON COLUMN @extschema@.user_sessions.metadata
    IS 'Data of the application about the session, as a JSON object of at most 8 kB';
COMMENT ON COLUMN @extschema@.user_sessions.ended_at
    IS 'Time at which the session ended, by logout or expiry; null until then';
COMMENT ON COLUMN @extschema@.user_sessions.user_key IS 'The application''s ID of the user, if it is not a UUID';
COMMENT ON CONSTRAINT user_sessions_pkey ON @extschema@.user_sessions IS 'Session IDs are unique';
COMMENT ON CONSTRAINT user_sessions_session_token_check ON @extschema@.user_sessions
    IS 'Only digests are stored, never tokens';
COMMENT ON CONSTRAINT user_sessions_metadata_check ON @extschema@.user_sessions
    IS 'Metadata is a JSON object of at most 8 kB';
COMMENT ON INDEX @extschema@.user_sessions_pkey IS 'Finds a session by its ID';
COMMENT ON INDEX @extschema@.user_sessions_session_token_key
    IS 'Ensures that no two sessions that have not ended have the same token';
COMMENT ON INDEX @extschema@.user_sessions_session_token_idx IS 'Finds a session by its token, also after its end';
COMMENT ON INDEX @extschema@.user_sessions_user_id_idx IS 'Finds the sessions of a user, those that have not ended apart';
COMMENT ON INDEX @extschema@.user_sessions_auth_id_idx
    IS 'Finds the sessions that an identity owns, for row-level security';
COMMENT ON TRIGGER presence_before_write ON @extschema@.user_sessions
    IS 'Checks and completes rows before they are written';
COMMENT ON TRIGGER presence_capture ON @extschema@.user_sessions
    IS 'Applies writes to shared memory at commit; must be ENABLE ALWAYS';
COMMENT ON TRIGGER presence_capture_truncate ON @extschema@.user_sessions
    IS 'Applies TRUNCATE to shared memory at commit; must be ENABLE ALWAYS';
COMMENT ON TRIGGER presence_before_truncate ON @extschema@.user_sessions
    IS 'Lets only the owner and services truncate the table';
COMMENT ON TRIGGER presence_before_truncate ON @extschema@.user_presence
    IS 'Lets only the owner and services truncate the table';
COMMENT ON TRIGGER presence_before_truncate ON @extschema@.presence_changes
    IS 'Lets only the owner and services truncate the table';
COMMENT ON TRIGGER presence_before_truncate ON @extschema@._feed_state
    IS 'Lets only the owner and services truncate the table';
COMMENT ON POLICY own_or_service_select ON @extschema@.user_sessions
    IS 'Clients can select their own sessions, services all sessions';
COMMENT ON POLICY own_or_service_insert ON @extschema@.user_sessions
    IS 'Clients can insert their own sessions, services all sessions';
COMMENT ON POLICY own_or_service_update ON @extschema@.user_sessions
    IS 'Clients can update their own sessions, services all sessions';
COMMENT ON POLICY own_or_service_delete ON @extschema@.user_sessions
    IS 'Clients can delete their own sessions, services all sessions';

-- Table user_presence

COMMENT ON TABLE @extschema@.user_presence IS 'Presence of users, one row each, written when the status or what is declared changes';
COMMENT ON COLUMN @extschema@.user_presence.user_id IS 'ID of the user';
COMMENT ON COLUMN @extschema@.user_presence.user_key IS 'The application''s ID of the user, if it is not a UUID';
COMMENT ON COLUMN @extschema@.user_presence.status IS 'Status as of the last change';
COMMENT ON COLUMN @extschema@.user_presence.is_online IS 'Whether the status is other than inactive';
COMMENT ON COLUMN @extschema@.user_presence.last_seen
    IS 'Time of the last activity as of the last change; while the user is online, use last_seen()';
COMMENT ON COLUMN @extschema@.user_presence.changed_at IS 'Time of the last change';
COMMENT ON COLUMN @extschema@.user_presence.seq IS 'Sequence number of the last change';
COMMENT ON COLUMN @extschema@.user_presence.idle_since
    IS 'Time at which somebody was last at one of the sessions, if all are idle';
COMMENT ON COLUMN @extschema@.user_presence.status_text IS 'Text that is declared of the user';
COMMENT ON COLUMN @extschema@.user_presence.emoji IS 'Emoji that is declared of the user';
COMMENT ON COLUMN @extschema@.user_presence.status_expires_at
    IS 'Time at which the first of the status, text and emoji that are declared ends; null if none ends by itself';
COMMENT ON CONSTRAINT user_presence_pkey ON @extschema@.user_presence IS 'Each user has one row';
COMMENT ON INDEX @extschema@.user_presence_pkey IS 'Finds a user by ID';
COMMENT ON INDEX @extschema@.user_presence_user_key_idx IS 'Finds a user by the application''s ID';
COMMENT ON TRIGGER presence_restore ON @extschema@.user_presence
    IS 'Skips restored rows of users that already have a newer one';
COMMENT ON TRIGGER presence_compare ON @extschema@.user_presence
    IS 'Has the worker compare all users after others have written';
COMMENT ON POLICY readers_select ON @extschema@.user_presence IS 'Readers can select all rows';

-- Table presence_changes

COMMENT ON TABLE @extschema@.presence_changes IS 'Change feed: the changes of status, text and emoji, kept for presence.feed_retention';
COMMENT ON COLUMN @extschema@.presence_changes.seq
    IS 'Sequence number of the change; within an epoch, without gaps and in commit order';
COMMENT ON COLUMN @extschema@.presence_changes.user_id
    IS 'ID of the user; null if the user has been erased by forget_user()';
COMMENT ON COLUMN @extschema@.presence_changes.user_key IS 'The application''s ID of the user, if it is not a UUID';
COMMENT ON COLUMN @extschema@.presence_changes.status IS 'Status after the change';
COMMENT ON COLUMN @extschema@.presence_changes.previous IS 'Status before the change';
COMMENT ON COLUMN @extschema@.presence_changes.changed_at IS 'Time at which the change was detected';
COMMENT ON COLUMN @extschema@.presence_changes.last_seen IS 'Time of the last activity as of the change';
COMMENT ON COLUMN @extschema@.presence_changes.reason
    IS 'Reason of the change: started, resumed, ended, released, timed_out, expired, deleted, recovered, idle, returned or declared';
COMMENT ON COLUMN @extschema@.presence_changes.details
    IS 'Whether the user has a text or emoji to read in user_presence';
COMMENT ON CONSTRAINT presence_changes_pkey ON @extschema@.presence_changes IS 'Sequence numbers are unique';
COMMENT ON INDEX @extschema@.presence_changes_pkey IS 'Finds the changes after a sequence number';
COMMENT ON POLICY readers_select ON @extschema@.presence_changes IS 'Readers can select all rows';

-- Table _feed_state

COMMENT ON TABLE @extschema@._feed_state IS 'State of the feed, in one row that the worker writes';
COMMENT ON COLUMN @extschema@._feed_state.epoch IS 'Identifies an uninterrupted sequence of changes';
COMMENT ON COLUMN @extschema@._feed_state.seq IS 'Sequence number of the last change';
COMMENT ON COLUMN @extschema@._feed_state.oldest_seq
    IS 'Sequence number of the oldest change that is kept, or else of the next one';
COMMENT ON COLUMN @extschema@._feed_state.origin IS 'Server, timeline and table that the epoch belongs to';

-- Table declared_statuses

COMMENT ON TABLE @extschema@.declared_statuses
    IS 'What is declared of users: one row for each source, valid until it expires or is deleted';
COMMENT ON COLUMN @extschema@.declared_statuses.user_id IS 'ID of the user';
COMMENT ON COLUMN @extschema@.declared_statuses.source
    IS 'Who declares it: manual (the user, before all others), text (a text of the user''s apart from that), visibility (hides the user), or any other name';
COMMENT ON COLUMN @extschema@.declared_statuses.status
    IS 'busy, away, or available (nothing, whatever other sources say); null for a text or emoji alone; invisible where the source is visibility';
COMMENT ON COLUMN @extschema@.declared_statuses.status_text IS 'Text, of at most 140 characters';
COMMENT ON COLUMN @extschema@.declared_statuses.emoji IS 'Emoji, of at most 64 bytes';
COMMENT ON COLUMN @extschema@.declared_statuses.set_at
    IS 'Time at which it was set; setting the same again does not change it';
COMMENT ON COLUMN @extschema@.declared_statuses.expires_at IS 'Time from which it is not valid; null: until it is cleared';
COMMENT ON COLUMN @extschema@.declared_statuses.by_user
    IS 'Whether the user is hidden by its own wish, which presence.allow_invisible has to allow';
COMMENT ON COLUMN @extschema@.declared_statuses.last_seen IS 'Last activity of the user before it was hidden; null: none';
COMMENT ON COLUMN @extschema@.declared_statuses.shown_at IS 'Time at which the user was shown again; null: it was not';
COMMENT ON CONSTRAINT declared_statuses_pkey ON @extschema@.declared_statuses IS 'Each source declares one thing of a user';
COMMENT ON CONSTRAINT declared_statuses_source_check ON @extschema@.declared_statuses IS 'A source is 1 to 63 bytes long';
COMMENT ON CONSTRAINT declared_statuses_status_check ON @extschema@.declared_statuses IS 'A status is a known word';
COMMENT ON CONSTRAINT declared_statuses_status_text_check ON @extschema@.declared_statuses
    IS 'A text is 1 to 140 characters long';
COMMENT ON CONSTRAINT declared_statuses_emoji_check ON @extschema@.declared_statuses IS 'An emoji is 1 to 64 bytes long';
COMMENT ON CONSTRAINT declared_statuses_check ON @extschema@.declared_statuses IS 'A row declares something';
COMMENT ON CONSTRAINT declared_statuses_visibility_check ON @extschema@.declared_statuses
    IS 'A row of the source visibility hides its user, and no other row does';
COMMENT ON INDEX @extschema@.declared_statuses_visibility_idx IS 'Finds who is hidden';
COMMENT ON INDEX @extschema@.declared_statuses_pkey IS 'Finds what is declared of a user';
COMMENT ON INDEX @extschema@.declared_statuses_expires_at_idx IS 'Finds what expires next';
COMMENT ON TRIGGER presence_before_write ON @extschema@.declared_statuses
    IS 'Checks and completes rows before they are written';
COMMENT ON TRIGGER presence_capture ON @extschema@.declared_statuses
    IS 'Has the worker look at users at commit; must be ENABLE ALWAYS';
COMMENT ON TRIGGER presence_capture_truncate ON @extschema@.declared_statuses
    IS 'Has the worker compare all users at commit; must be ENABLE ALWAYS';
COMMENT ON TRIGGER presence_before_truncate ON @extschema@.declared_statuses
    IS 'Lets only the owner and services truncate the table';
COMMENT ON POLICY own_or_service_select ON @extschema@.declared_statuses
    IS 'Clients can select their own rows, services all rows';
COMMENT ON POLICY service_insert ON @extschema@.declared_statuses
    IS 'Services can insert rows; clients call set_status()';
COMMENT ON POLICY service_update ON @extschema@.declared_statuses
    IS 'Services can update rows; clients call set_status()';
COMMENT ON POLICY service_delete ON @extschema@.declared_statuses
    IS 'Services can delete rows; clients call clear_status()';

-- View presence_stats

COMMENT ON VIEW @extschema@.presence_stats IS 'Statistics of this database and its worker, in one row';
COMMENT ON COLUMN @extschema@.presence_stats.live_sessions IS 'Number of live sessions';
COMMENT ON COLUMN @extschema@.presence_stats.known_sessions
    IS 'Number of sessions in shared memory that have not ended';
COMMENT ON COLUMN @extschema@.presence_stats.users_online IS 'Number of users with a live session';
COMMENT ON COLUMN @extschema@.presence_stats.known_users IS 'Number of users in shared memory';
COMMENT ON COLUMN @extschema@.presence_stats.capacity
    IS 'Number of slots for sessions in shared memory, for all databases';
COMMENT ON COLUMN @extschema@.presence_stats.used IS 'Number of slots in use, by all databases';
COMMENT ON COLUMN @extschema@.presence_stats.is_complete
    IS 'Whether all sessions that have not ended are in shared memory';
COMMENT ON COLUMN @extschema@.presence_stats.in_overflow
    IS 'Whether sessions are missing from shared memory because it was full';
COMMENT ON COLUMN @extschema@.presence_stats.overflowed IS 'Number of writes for which shared memory had no room';
COMMENT ON COLUMN @extschema@.presence_stats.evicted
    IS 'Number of timed-out sessions evicted from shared memory to make room';
COMMENT ON COLUMN @extschema@.presence_stats.slow_calls IS 'Number of calls that had to access the tables';
COMMENT ON COLUMN @extschema@.presence_stats.beats IS 'Number of heartbeats';
COMMENT ON COLUMN @extschema@.presence_stats.rejected_beats
    IS 'Number of heartbeats for sessions that had ended or did not exist';
COMMENT ON COLUMN @extschema@.presence_stats.unwritten_users
    IS 'Number of users whose status may have changed and is yet to be written';
COMMENT ON COLUMN @extschema@.presence_stats.changes IS 'Number of changes written';
COMMENT ON COLUMN @extschema@.presence_stats.notifications IS 'Number of notifications sent';
COMMENT ON COLUMN @extschema@.presence_stats.flushed_rows IS 'Number of rows whose last_activity was flushed';
COMMENT ON COLUMN @extschema@.presence_stats.deactivated_rows IS 'Number of rows marked as not active';
COMMENT ON COLUMN @extschema@.presence_stats.deleted_rows IS 'Number of rows deleted';
COMMENT ON COLUMN @extschema@.presence_stats.worker_pid IS 'Process ID of the worker; null if none is running';
COMMENT ON COLUMN @extschema@.presence_stats.worker_started_at IS 'Time at which the worker started';
COMMENT ON COLUMN @extschema@.presence_stats.last_tick_at IS 'Time at which the worker last completed a tick';
COMMENT ON COLUMN @extschema@.presence_stats.last_flush_at IS 'Time of the last flush';
COMMENT ON COLUMN @extschema@.presence_stats.last_cleanup_at IS 'Time of the last cleanup';
COMMENT ON COLUMN @extschema@.presence_stats.tick_ms IS 'Duration of the last tick, in milliseconds';
COMMENT ON COLUMN @extschema@.presence_stats.flush_ms IS 'Duration of the last flush, in milliseconds';
COMMENT ON COLUMN @extschema@.presence_stats.cleanup_ms IS 'Duration of the last cleanup, in milliseconds';
COMMENT ON COLUMN @extschema@.presence_stats.oldest_unflushed_ms
    IS 'Age of the oldest activity that is yet to be flushed, in milliseconds';
COMMENT ON COLUMN @extschema@.presence_stats.oldest_unwritten_ms
    IS 'Time for which the oldest change of status has waited to be written, in milliseconds; null if none waits';
COMMENT ON COLUMN @extschema@.presence_stats.set_aside
    IS 'Number of rows and users that wait because they could not be written';
COMMENT ON COLUMN @extschema@.presence_stats.last_error IS 'Last error that the worker met: what it was doing, SQLSTATE, message';
COMMENT ON COLUMN @extschema@.presence_stats.last_error_at IS 'Time of the last error that the worker met';
COMMENT ON COLUMN @extschema@.presence_stats.notification_queue_usage
    IS 'Fraction of the notification queue that is in use, from 0 to 1';
COMMENT ON COLUMN @extschema@.presence_stats.epoch IS 'Epoch of the feed';
COMMENT ON COLUMN @extschema@.presence_stats.seq IS 'Sequence number of the last change';

-- Functions: sessions

COMMENT ON FUNCTION @extschema@.start_session(pg_catalog.uuid, pg_catalog.text, pg_catalog.jsonb, pg_catalog.text, pg_catalog.interval, pg_catalog.uuid)
    IS 'Starts a session, or resumes the one with the same token; returns the session with its token';
COMMENT ON FUNCTION @extschema@.start_sessions(pg_catalog.uuid[], pg_catalog.text[], pg_catalog.text[], pg_catalog.jsonb[])
    IS 'Starts or resumes several sessions; returns one row per position; for services';
COMMENT ON FUNCTION @extschema@.heartbeat(pg_catalog.uuid)
    IS 'Records a heartbeat; returns ok, ended (sign in again) or unknown (start a session)';
COMMENT ON FUNCTION @extschema@.heartbeat_by_token(pg_catalog.text) IS 'Like heartbeat(), by the token of the session';
COMMENT ON FUNCTION @extschema@.heartbeat_idle(pg_catalog.uuid)
    IS 'Like heartbeat(), of a client that nobody is at: after presence.idle_timeout the session is idle';
COMMENT ON FUNCTION @extschema@.heartbeat_idle_by_token(pg_catalog.text)
    IS 'Like heartbeat_idle(), by the token of the session';
COMMENT ON FUNCTION @extschema@.heartbeat_many(pg_catalog.uuid[])
    IS 'Records heartbeats; returns the IDs of sessions that have ended or are unknown';
COMMENT ON FUNCTION @extschema@.end_session(pg_catalog.uuid)
    IS 'Ends a session; returns whether it had not ended before';
COMMENT ON FUNCTION @extschema@.end_session_by_token(pg_catalog.text)
    IS 'Like end_session(), by the token of the session';
COMMENT ON FUNCTION @extschema@.end_sessions(pg_catalog.uuid[]) IS 'Ends several sessions; returns how many';
COMMENT ON FUNCTION @extschema@.end_user_sessions(pg_catalog.uuid)
    IS 'Ends all sessions of a user, by default the caller; returns how many';
COMMENT ON FUNCTION @extschema@.release_session(pg_catalog.uuid, pg_catalog.interval)
    IS 'Makes a session time out after a grace period unless it sends a heartbeat before';
COMMENT ON FUNCTION @extschema@.release_session_by_token(pg_catalog.text, pg_catalog.interval)
    IS 'Like release_session(), by the token of the session';
COMMENT ON FUNCTION @extschema@.release_sessions(pg_catalog.uuid[], pg_catalog.interval)
    IS 'Releases several sessions; returns how many';
COMMENT ON FUNCTION @extschema@.bind_sessions(pg_catalog.uuid[], pg_catalog.interval)
    IS 'Keeps sessions live without heartbeats until the connection ends, and then for a grace period; returns the IDs of sessions that are not bound';
COMMENT ON FUNCTION @extschema@.rotate_session_token(pg_catalog.uuid)
    IS 'Replaces the token of a session at commit; returns the new token';

-- Functions: presence and the feed

COMMENT ON FUNCTION @extschema@.user_status(pg_catalog.uuid)
    IS 'Returns the status of a user; inactive if the user is unknown';
COMMENT ON FUNCTION @extschema@.is_online(pg_catalog.uuid) IS 'Returns whether a user has a live session';
COMMENT ON FUNCTION @extschema@.last_seen(pg_catalog.uuid)
    IS 'Returns the time of the last activity of a user; null if the user is unknown';
COMMENT ON FUNCTION @extschema@.presence_of(pg_catalog.uuid[], pg_catalog.text[])
    IS 'Returns the presence of the given users, in order';
COMMENT ON FUNCTION @extschema@.online_users() IS 'Returns the presence of all users that are online';
COMMENT ON FUNCTION @extschema@.online_count() IS 'Returns the number of users that are online';
COMMENT ON FUNCTION @extschema@.presence_cursor()
    IS 'Returns the current position in the feed; read it before user_presence';
COMMENT ON FUNCTION @extschema@.changes_since(pg_catalog.int8, pg_catalog.text, pg_catalog.int4)
    IS 'Returns the changes after a position, in order; fails if they are no longer kept or the epoch differs';

-- Functions: declared statuses

COMMENT ON FUNCTION @extschema@.set_status(pg_catalog.text, pg_catalog.text, pg_catalog.text, pg_catalog.interval, pg_catalog.text, pg_catalog.uuid)
    IS 'Declares a status, text and emoji of a user, in place of what the same source has declared; returns the row';
COMMENT ON FUNCTION @extschema@.clear_status(pg_catalog.text, pg_catalog.uuid)
    IS 'Takes back what a source has declared of a user; returns whether it was still valid';

COMMENT ON FUNCTION @extschema@.set_invisible(pg_catalog.bool, pg_catalog.interval, pg_catalog.uuid)
    IS 'Hides a user, who then shows as offline, or shows one again';
COMMENT ON FUNCTION @extschema@.own_presence(pg_catalog.uuid)
    IS 'Returns what a user is, hidden or not, and what others are shown';

-- Functions: identity and tokens

COMMENT ON FUNCTION @extschema@.is_service() IS 'Returns whether the caller is a service';
COMMENT ON FUNCTION @extschema@.presence_user_id() IS 'Returns the user ID of the caller; null without an identity';
COMMENT ON FUNCTION @extschema@.presence_auth_id()
    IS 'Returns the identity of the caller: the claim, or else presence.user_id; null without one';
COMMENT ON FUNCTION @extschema@.presence_id(pg_catalog.text)
    IS 'Maps a text that is the application''s ID of a user to the user ID';
COMMENT ON FUNCTION @extschema@.presence_id(pg_catalog.int8)
    IS 'Maps an integer that is the application''s ID of a user to the user ID';
COMMENT ON FUNCTION @extschema@.token_digest(pg_catalog.text)
    IS 'Returns the digest of a token, as in user_sessions.session_token';

-- Functions: administration

COMMENT ON FUNCTION @extschema@.grant_holder(pg_catalog.regrole)
    IS 'Makes a role a holder, which can act on a session by its token';
COMMENT ON FUNCTION @extschema@.grant_client(pg_catalog.regrole)
    IS 'Makes a role a client, which can act for its own identity';
COMMENT ON FUNCTION @extschema@.grant_reader(pg_catalog.regrole)
    IS 'Makes a role a reader, which can read the status of every user';
COMMENT ON FUNCTION @extschema@.grant_service(pg_catalog.regrole)
    IS 'Makes a role a service, which can act for every user';
COMMENT ON FUNCTION @extschema@.forget_user(pg_catalog.uuid)
    IS 'Erases the sessions, presence and declared statuses of a user, and the user from the feed';
COMMENT ON FUNCTION @extschema@.cleanup_sessions()
    IS 'Marks timed-out sessions as not active and deletes old ones, as the worker does';
COMMENT ON FUNCTION @extschema@.renew_epoch()
    IS 'Gives the feed a new epoch, for a copy of a server that was shut down cleanly; clients start over';
COMMENT ON FUNCTION @extschema@.presence_health()
    IS 'Checks worker, settings, definitions and privileges; returns one row per check, with a hint if it fails';
COMMENT ON FUNCTION @extschema@.presence_metrics()
    IS 'Returns the statistics and the number of failed health checks as text in the OpenMetrics format';

-- Internal functions

COMMENT ON FUNCTION @extschema@._stats() IS 'Returns the statistics for the view presence_stats';
COMMENT ON FUNCTION @extschema@._grant_usage(pg_catalog.regrole)
    IS 'Grants USAGE on the schema and the functions that everybody may call, for the functions grant_holder() to grant_service()';
COMMENT ON FUNCTION @extschema@._grant_holder(pg_catalog.regrole)
    IS 'Grants the privileges of a holder, for grant_holder()';
COMMENT ON FUNCTION @extschema@._grant_client(pg_catalog.regrole)
    IS 'Grants the privileges of a client, for grant_client()';
COMMENT ON FUNCTION @extschema@._grant_reader(pg_catalog.regrole)
    IS 'Grants the privileges of a reader, for grant_reader()';
COMMENT ON FUNCTION @extschema@._grant_service(pg_catalog.regrole)
    IS 'Grants the privileges of a service, for grant_service()';
COMMENT ON FUNCTION @extschema@._start_worker() IS 'Requests a worker at commit, for the install';
COMMENT ON FUNCTION @extschema@._before_truncate() IS 'Trigger function of presence_before_truncate';
COMMENT ON FUNCTION @extschema@._before_write() IS 'Trigger function of presence_before_write';
COMMENT ON FUNCTION @extschema@._before_declare() IS 'Trigger function of presence_before_write on declared_statuses';
COMMENT ON FUNCTION @extschema@._capture_declared()
    IS 'Trigger function of presence_capture and presence_capture_truncate on declared_statuses';
COMMENT ON FUNCTION @extschema@._capture() IS 'Trigger function of presence_capture and presence_capture_truncate';
COMMENT ON FUNCTION @extschema@._compare() IS 'Trigger function of presence_compare';
COMMENT ON FUNCTION @extschema@._restore() IS 'Trigger function of presence_restore';
COMMENT ON FUNCTION @extschema@._grant_health(pg_catalog.regrole) IS 'Grants presence_metrics(), and presence_health() with what it calls';
COMMENT ON FUNCTION @extschema@._definitions(pg_catalog.text) IS 'Returns the objects of one kind as the extension creates them';
COMMENT ON FUNCTION @extschema@._renamed_columns() IS 'Returns the columns of the extension that have another name';
COMMENT ON FUNCTION @extschema@._comparable(pg_catalog.text, pg_catalog.oid) IS 'Returns a definition in the form of those of _definitions()';
COMMENT ON FUNCTION @extschema@._health_worker() IS 'Health checks of the worker and the capacity';
COMMENT ON FUNCTION @extschema@._health_changes() IS 'Health check of how long changes wait, and for whom';
COMMENT ON FUNCTION @extschema@._health_settings() IS 'Health check of the settings';
COMMENT ON FUNCTION @extschema@._health_identity() IS 'Health check of presence.user_id_function';
COMMENT ON FUNCTION @extschema@._health_tables() IS 'Health check of the tables';
COMMENT ON FUNCTION @extschema@._health_columns() IS 'Health checks of the columns';
COMMENT ON FUNCTION @extschema@._health_constraints() IS 'Health check of the constraints';
COMMENT ON FUNCTION @extschema@._health_indexes() IS 'Health check of the indexes';
COMMENT ON FUNCTION @extschema@._health_triggers() IS 'Health check of the triggers';
COMMENT ON FUNCTION @extschema@._health_policies() IS 'Health checks of the policies and of row-level security';
COMMENT ON FUNCTION @extschema@._health_owner() IS 'Health check of the owner of the tables';
COMMENT ON FUNCTION @extschema@._health_services() IS 'Health check of who is a service';
COMMENT ON FUNCTION @extschema@._health_grants() IS 'Health check of the privileges';
COMMENT ON FUNCTION @extschema@._health_schema() IS 'Health check of who may create objects in the schema';
COMMENT ON FUNCTION @extschema@._health_logging() IS 'Health check of what the server logs';
COMMENT ON FUNCTION @extschema@._health_locked_out() IS 'Health check of roles that lack what grant_*() gave them';
COMMENT ON FUNCTION @extschema@._health_other_triggers() IS 'Health check of triggers and foreign keys that others have added';
COMMENT ON FUNCTION @extschema@._health_schema_owner() IS 'Health check of who owns the schema';
