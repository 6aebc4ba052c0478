-- Health checks of the worker and of what it waits for.

CREATE FUNCTION @extschema@._health_worker()
RETURNS TABLE (check_name pg_catalog.text, ok pg_catalog.bool, detail pg_catalog.text, hint pg_catalog.text)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    home regnamespace := (SELECT e.extnamespace FROM pg_extension e WHERE e.extname = 'pg_presence');
    stats record;
    standby bool := pg_is_in_recovery();
BEGIN
    EXECUTE format('SELECT s.* FROM %s._stats() s', home) INTO stats;

    check_name := 'worker';
    ok := standby OR (stats.worker_pid IS NOT NULL
                      AND stats.last_tick_at IS NOT NULL
                      AND clock_timestamp() - stats.last_tick_at < interval '5 s');
    detail := CASE
        WHEN standby THEN 'A standby has no worker; it starts at promotion.'
        WHEN stats.worker_pid IS NULL THEN 'No worker is running for this database.'
        WHEN stats.last_tick_at IS NULL THEN format('The worker with PID %s is starting.', stats.worker_pid)
        ELSE format('The worker with PID %s was last active %s ms ago.', stats.worker_pid,
                    round(extract(epoch FROM clock_timestamp() - stats.last_tick_at) * 1000)) END;
    hint := CASE WHEN NOT ok
        THEN 'Check the server log. If there is no free worker slot, increase max_worker_processes and restart.' END;
    RETURN NEXT;

    check_name := 'capacity';
    ok := NOT stats.in_overflow AND stats.used < stats.capacity * 0.9;
    detail := format('%s of %s slots are in use%s.', stats.used, stats.capacity,
                     CASE WHEN stats.in_overflow THEN '; some sessions have no slot' ELSE '' END);
    hint := CASE WHEN NOT ok
        THEN 'Presence remains correct but becomes slower. Increase presence.max_sessions and restart.' END;
    RETURN NEXT;

    check_name := 'complete';
    ok := standby OR stats.is_complete;
    detail := CASE WHEN standby THEN 'A standby reads the tables.'
                   WHEN ok THEN 'All sessions are in shared memory.'
                   ELSE 'Some sessions are not in shared memory, so some calls read the table.' END;
    hint := CASE WHEN NOT ok
        THEN 'This is normal for some seconds after a start. If it persists, see the checks worker, capacity, '
             'triggers and other_triggers.' END;
    RETURN NEXT;

    check_name := 'flush';
    ok := standby OR COALESCE(stats.oldest_unflushed_ms, 0) / 1000.0
                         < extract(epoch FROM current_setting('presence.flush_interval')::interval) * 2 + 60;
    detail := format('The table lags behind by at most %s s.', round(COALESCE(stats.oldest_unflushed_ms, 0) / 1000.0));
    hint := CASE WHEN NOT ok
        THEN 'Something prevents the worker from updating user_sessions. See the check changes.' END;
    RETURN NEXT;

    check_name := 'queue';
    ok := pg_notification_queue_usage() < 0.5;
    detail := format('The notification queue is %s %% full.',
                     round((pg_notification_queue_usage() * 100)::numeric, 1));
    hint := CASE WHEN NOT ok
        THEN 'A listening session keeps a transaction open. Check pg_stat_activity for long transactions.' END;
    RETURN NEXT;

    check_name := 'unwritable';
    ok := stats.set_aside = 0;
    detail := CASE WHEN ok THEN 'Everything that the worker has to write can be written.'
                   ELSE format('The worker could not write and will retry: %s. Last error: %s (%s).',
                               stats.set_aside, stats.last_error, stats.last_error_at) END;
    hint := CASE WHEN NOT ok
        THEN 'Remove what the error names: a trigger, constraint, foreign key, publication with a row filter, or lock. '
             'The worker writes the rest meanwhile.' END;
    RETURN NEXT;
END
$function$;

-- How long the oldest change of status has waited to be written, and who is in the way: whoever waits for the worker's
-- locks, holds or requests a lock that conflicts with them, or has been in a transaction that wrote or locked rows of
-- the tables for as long.
CREATE FUNCTION @extschema@._health_changes()
RETURNS TABLE (check_name pg_catalog.text, ok pg_catalog.bool, detail pg_catalog.text, hint pg_catalog.text)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    home regnamespace := (SELECT e.extnamespace FROM pg_extension e WHERE e.extname = 'pg_presence');
    stats record;
    waited numeric;
    unflushed numeric;
    others text;
    ends text;
BEGIN
    EXECUTE format('SELECT s.* FROM %s._stats() s', home) INTO stats;
    waited := COALESCE(stats.oldest_unwritten_ms, 0) / 1000.0;
    unflushed := COALESCE(stats.oldest_unflushed_ms, 0) / 1000.0;
    EXECUTE format($query$
        WITH held AS (
            SELECT l.pid, l.granted, l.mode,
                   l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') AS whole
              FROM pg_locks l
              JOIN pg_database b ON b.oid = l.database AND b.datname = current_database()
             WHERE l.locktype = 'relation'
               AND l.relation IN (SELECT d.relid FROM %1$s._definitions('table') d)
               AND l.pid NOT IN (pg_backend_pid(), COALESCE($1, 0))
        ), blocker AS (
            SELECT h.pid FROM held h WHERE h.whole
            UNION
            SELECT unnest(pg_blocking_pids($1))
            UNION
            SELECT h.pid
              FROM held h
              JOIN pg_stat_activity a ON a.pid = h.pid
             WHERE h.mode IN ('RowShareLock', 'RowExclusiveLock') AND h.granted
               AND a.backend_type IN ('client backend', 'logical replication worker')
               AND ($2 > 1 OR $3 > 60)
               AND clock_timestamp() - a.xact_start >= make_interval(secs => greatest($2, 1) - 1)
            UNION
            -- A prepared transaction has no process.
            SELECT 0 FROM pg_locks l
             WHERE l.pid IS NULL AND l.locktype = 'relation' AND l.relation IN (SELECT d.relid FROM %1$s._definitions('table') d)
        )
        SELECT string_agg(CASE WHEN b.pid = 0 THEN 'a prepared transaction' ELSE
                   format('process %%s (%%s%%s, in a transaction since %%s)', b.pid,
                       COALESCE(a.usename::text, a.backend_type, 'unknown'),
                       ', ' || NULLIF(a.application_name, ''),
                       COALESCE(date_trunc('second', a.xact_start)::text, 'an unknown time')) END, ', ' ORDER BY b.pid),
               string_agg(format('SELECT pg_terminate_backend(%%s);', b.pid), ' ' ORDER BY b.pid) FILTER (WHERE b.pid <> 0)
          FROM blocker b
          LEFT JOIN pg_stat_activity a ON a.pid = b.pid
    $query$, home) INTO others, ends USING stats.worker_pid, waited, unflushed;
    RETURN QUERY SELECT 'changes', pg_is_in_recovery() OR waited < 5,
        concat(CASE WHEN stats.oldest_unwritten_ms IS NULL THEN 'No change waits to be written.'
                    ELSE format('The oldest change has waited for %s s to be written.', round(waited, 1)) END,
               ' In the way: ' || others || '.'),
        CASE WHEN NOT (pg_is_in_recovery() OR waited < 5)
             THEN COALESCE(ends, CASE WHEN others IS NOT NULL
                  THEN 'Commit or roll back the transaction that pg_prepared_xacts lists.' END,
                  'See the checks unwritable and worker, and the server log.') END;
END
$function$;
