-- Who is online, and every change since, in psql:  psql -f follow.sql     `follow` begins again after a cut connection.
\set QUIET on
\set ON_ERROR_STOP on
\pset tuples_only on
\pset format unaligned
SET search_path = presence, public;

-- Listen first, then ask where the feed stands, then who is online: in this order nothing falls between.
LISTEN presence;
SELECT set_config('follow.epoch', epoch, false), set_config('follow.seq', seq::text, false)
  FROM presence_cursor() \g /dev/null
SELECT coalesce(user_key, user_id::text), status FROM user_presence WHERE is_online;

-- psql shows a notification with the next command, and can do nothing about it. So it asks every second what there was
-- since, and keeps where it stands in a setting. Too long ago, or a database restored: an error, and `follow` starts over.
SELECT coalesce(user_key, user_id::text), status, reason, set_config('follow.seq', seq::text, false)
  FROM changes_since(current_setting('follow.seq')::bigint, current_setting('follow.epoch')) \watch 1
