-- One iteration of the lossless loop, each request as PostgREST runs it. The script `follow` repeats it.
\set ON_ERROR_STOP on
\set claims '{"sub":"5d1f5c1e-6a4e-4f0e-9a43-0d3c7c2c6a11","role":"authenticated"}'

\if :{?epoch}
\else
-- The first iteration: the feed's cursor, then who is online.
-- const { data: { epoch, seq } } = await supabase.rpc('presence_cursor')
BEGIN READ ONLY;
SELECT set_config('role', 'authenticated', true), set_config('request.jwt.claims', :'claims', true) \g /dev/null
SELECT epoch, seq FROM presence.presence_cursor() \gset
COMMIT;
-- const { data: users } = await supabase.from('user_presence').select('user_id, status, seq').eq('is_online', true)
BEGIN READ ONLY;
SELECT set_config('role', 'authenticated', true), set_config('request.jwt.claims', :'claims', true) \g /dev/null
SELECT coalesce(json_agg(t), '[]') AS users
  FROM (SELECT user_id, status, seq FROM presence.user_presence WHERE is_online) t \gset
COMMIT;
\echo :users
\endif

-- Every iteration: the changes since. If a page is full, read the next; on error.code '72000' start over.
-- const { data: changes, error } = await supabase.rpc('changes_since', { seq, epoch })
BEGIN READ ONLY;
SELECT set_config('role', 'authenticated', true), set_config('request.jwt.claims', :'claims', true) \g /dev/null
SELECT coalesce(json_agg(t), '[]') AS changes, coalesce(max(seq), :seq) AS seq
  FROM (SELECT user_id, status, seq FROM presence.changes_since(seq => :seq, epoch => :'epoch')) t \gset
COMMIT;
-- for (const { user_id, status, seq } of changes): apply it if seq is above the user's last
\echo :changes
