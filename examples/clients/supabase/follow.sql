-- One turn of the loop that loses nothing, each request as PostgREST makes it. `follow` takes turns.
\set ON_ERROR_STOP on
\set claims '{"sub":"5d1f5c1e-6a4e-4f0e-9a43-0d3c7c2c6a11","role":"authenticated"}'

\if :{?epoch}
\else
-- The first turn: where the feed stands, then everybody.
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

-- Every turn: what there was since. A full answer has more behind it; error.code '72000' means to start over.
-- const { data: changes, error } = await supabase.rpc('changes_since', { seq, epoch })
BEGIN READ ONLY;
SELECT set_config('role', 'authenticated', true), set_config('request.jwt.claims', :'claims', true) \g /dev/null
SELECT coalesce(json_agg(t), '[]') AS changes, coalesce(max(seq), :seq) AS seq
  FROM (SELECT user_id, status, seq FROM presence.changes_since(seq => :seq, epoch => :'epoch')) t \gset
COMMIT;
-- for (const { user_id, status, seq } of changes) where seq is above the user's own
\echo :changes
