-- Who is online, and every change since:  psql -f follow.sql     The script `follow` restarts it after an error.
\set QUIET on
\set ON_ERROR_STOP on
\pset tuples_only on
\pset format unaligned
SET search_path = presence, public;

-- First LISTEN, then read the feed's cursor, then who is online: in this order no change is missed.
LISTEN presence;
SELECT set_config('follow.epoch', epoch, false), set_config('follow.seq', seq::text, false)
  FROM presence_cursor() \g /dev/null
SELECT coalesce(user_key, user_id::text), status FROM user_presence WHERE is_online;

-- psql prints notifications after a command, but cannot act on them. So this polls the feed every second, and keeps its
-- position in a setting. If the position is too old, or the epoch has changed, it fails, and `follow` starts over.
SELECT coalesce(user_key, user_id::text), status, reason, set_config('follow.seq', seq::text, false)
  FROM changes_since(current_setting('follow.seq')::bigint, current_setting('follow.epoch')) \watch 1
