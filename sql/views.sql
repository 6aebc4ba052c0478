-- Statistics of this database, for monitoring.

CREATE VIEW @extschema@.presence_stats AS
SELECT s.live_sessions,
       s.known_sessions,
       s.users_online,
       s.known_users,
       s.capacity,
       s.used,
       s.is_complete,
       s.in_overflow,
       s.overflowed,
       s.evicted,
       s.slow_calls,
       s.beats,
       s.rejected_beats,
       s.unwritten_users,
       s.changes,
       s.notifications,
       s.flushed_rows,
       s.deactivated_rows,
       s.deleted_rows,
       s.worker_pid,
       s.worker_started_at,
       s.last_tick_at,
       s.last_flush_at,
       s.last_cleanup_at,
       s.tick_ms,
       s.flush_ms,
       s.cleanup_ms,
       s.oldest_unflushed_ms,
       s.oldest_unwritten_ms,
       s.set_aside,
       s.last_error,
       s.last_error_at,
       pg_catalog.pg_notification_queue_usage() AS notification_queue_usage,
       p.epoch,
       p.seq
  FROM @extschema@._stats() s
  LEFT JOIN (
      SELECT epoch, seq FROM @extschema@._feed_state ORDER BY seq DESC LIMIT 1
  ) p ON true;
