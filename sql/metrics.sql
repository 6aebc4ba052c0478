-- The statistics of this database in the OpenMetrics format, for monitoring systems.

-- Reads shared memory and the catalogs, but none of the tables, so that nobody's lock on these delays it. A health check
-- that meets a lock all the same counts as failed.
CREATE FUNCTION @extschema@.presence_metrics() RETURNS pg_catalog.text
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '100ms'
AS $function$
DECLARE
    -- The schema may have been renamed since the install.
    home regnamespace := (SELECT e.extnamespace FROM pg_extension e WHERE e.extname = 'pg_presence');
    stats record;
    failed int8;
    labels text := concat('{datname="', replace(replace(replace(current_database()::text,
        E'\\', E'\\\\'), '"', E'\\"'), E'\n', E'\\n'), '"}');
    families text;
BEGIN
    -- Refuses whoever is neither a service nor a member of pg_monitor.
    EXECUTE format('SELECT s.* FROM %s._stats() s', home) INTO stats;
    EXECUTE format('SELECT count(*) FROM %s.presence_health() h WHERE NOT h.ok', home) INTO failed;

    SELECT string_agg(concat(
               '# TYPE pg_presence_', m.name, ' ', m.type, E'\n',
               '# UNIT pg_presence_' || m.name || ' ' || m.unit || E'\n',
               '# HELP pg_presence_', m.name, ' ', m.help, E'\n',
               -- No sample of what is not known.
               'pg_presence_' || m.name || CASE m.type WHEN 'counter' THEN '_total' ELSE '' END || labels || ' '
                   || m.value || E'\n'), '' ORDER BY m.name)
      INTO families
      FROM (VALUES
        ('live_sessions', 'gauge', NULL, 'Number of live sessions.', stats.live_sessions::float8),
        ('known_sessions', 'gauge', NULL, 'Number of sessions in shared memory that have not ended.', stats.known_sessions),
        ('users_online', 'gauge', NULL, 'Number of users with a live session.', stats.users_online),
        ('known_users', 'gauge', NULL, 'Number of users in shared memory.', stats.known_users),
        ('slots', 'gauge', NULL, 'Number of slots for sessions in shared memory, for all databases.', stats.capacity),
        ('slots_used', 'gauge', NULL, 'Number of slots in use, by all databases.', stats.used),
        ('complete', 'gauge', NULL, 'Whether all sessions that have not ended are in shared memory.',
         stats.is_complete::int),
        ('in_overflow', 'gauge', NULL, 'Whether sessions are missing from shared memory because it was full.',
         stats.in_overflow::int),
        ('overflowed', 'counter', NULL, 'Number of writes for which shared memory had no room.', stats.overflowed),
        ('evicted', 'counter', NULL, 'Number of timed-out sessions evicted from shared memory to make room.',
         stats.evicted),
        ('slow_calls', 'counter', NULL, 'Number of calls that had to access the tables.', stats.slow_calls),
        ('beats', 'counter', NULL, 'Number of heartbeats.', stats.beats),
        ('rejected_beats', 'counter', NULL, 'Number of heartbeats for sessions that had ended or did not exist.',
         stats.rejected_beats),
        ('unwritten_users', 'gauge', NULL, 'Number of users whose status may have changed and is yet to be written.',
         stats.unwritten_users),
        ('oldest_unwritten_seconds', 'gauge', 'seconds',
         'Time for which the oldest change of status has waited to be written; 0 if none waits.',
         COALESCE(stats.oldest_unwritten_ms, 0) / 1000.0),
        ('oldest_unflushed_seconds', 'gauge', 'seconds',
         'Age of the oldest activity that is yet to be flushed; 0 if there is none.',
         COALESCE(stats.oldest_unflushed_ms, 0) / 1000.0),
        ('set_aside', 'gauge', NULL, 'Number of rows and users that wait because they could not be written.',
         stats.set_aside),
        ('changes', 'counter', NULL, 'Number of changes of status written.', stats.changes),
        ('notifications', 'counter', NULL, 'Number of notifications sent.', stats.notifications),
        ('flushed_rows', 'counter', NULL, 'Number of rows whose last_activity was flushed.', stats.flushed_rows),
        ('deactivated_rows', 'counter', NULL, 'Number of rows marked as not active.', stats.deactivated_rows),
        ('deleted_rows', 'counter', NULL, 'Number of rows deleted.', stats.deleted_rows),
        ('worker_running', 'gauge', NULL, 'Whether the worker of this database is running.',
         (stats.worker_pid IS NOT NULL)::int),
        ('worker_started_timestamp_seconds', 'gauge', 'seconds', 'Time at which the worker started.',
         extract(epoch FROM stats.worker_started_at)),
        ('last_tick_timestamp_seconds', 'gauge', 'seconds', 'Time at which the worker last completed a tick.',
         extract(epoch FROM stats.last_tick_at)),
        ('last_flush_timestamp_seconds', 'gauge', 'seconds', 'Time of the last flush.',
         extract(epoch FROM stats.last_flush_at)),
        ('last_cleanup_timestamp_seconds', 'gauge', 'seconds', 'Time of the last cleanup.',
         extract(epoch FROM stats.last_cleanup_at)),
        ('last_error_timestamp_seconds', 'gauge', 'seconds', 'Time of the last error that the worker met.',
         extract(epoch FROM stats.last_error_at)),
        ('tick_seconds', 'gauge', 'seconds', 'Duration of the last tick.', stats.tick_ms / 1000),
        ('flush_seconds', 'gauge', 'seconds', 'Duration of the last flush.', stats.flush_ms / 1000),
        ('cleanup_seconds', 'gauge', 'seconds', 'Duration of the last cleanup.', stats.cleanup_ms / 1000),
        ('notification_queue_usage_ratio', 'gauge', 'ratio', 'Fraction of the notification queue that is in use.',
         pg_notification_queue_usage()),
        ('failed_health_checks', 'gauge', NULL, 'Number of checks of presence_health() that fail.', failed)
      ) m (name, type, unit, help, value);
    -- Without a newline, which psql and others add.
    RETURN families || '# EOF';
END
$function$;
