-- What a browser calls with supabase-js, and the SQL that PostgREST runs for it:  psql -U authenticator -f presence.sql
--
--   const supabase = createClient(url, key, { db: { schema: 'presence' } })
\set ON_ERROR_STOP on
\set claims '{"sub":"5d1f5c1e-6a4e-4f0e-9a43-0d3c7c2c6a11","role":"authenticated"}'

-- const { data: session } = await supabase.rpc('start_session', { metadata: { device: 'phone' } })
BEGIN;
SELECT set_config('role', 'authenticated', true), set_config('request.jwt.claims', :'claims', true) \g /dev/null
SELECT session_id, session_token, heartbeat_ms FROM presence.start_session(metadata => '{"device": "phone"}') \gset
COMMIT;

-- await supabase.rpc('heartbeat', { session_id: session.session_id })     every session.heartbeat_ms
BEGIN;
SELECT set_config('role', 'authenticated', true), set_config('request.jwt.claims', :'claims', true) \g /dev/null
SELECT presence.heartbeat(session_id => :'session_id');
COMMIT;

-- await supabase.rpc('presence_of', { user_ids })
BEGIN READ ONLY;
SELECT set_config('role', 'authenticated', true), set_config('request.jwt.claims', :'claims', true) \g /dev/null
SELECT user_id, status, session_count
  FROM presence.presence_of(ARRAY['5d1f5c1e-6a4e-4f0e-9a43-0d3c7c2c6a11', '00000000-0000-4000-8000-000000000000']::uuid[]);
COMMIT;

-- Changes arrive through Realtime, which may lose some. The loop in follow.sql loses none.
--   supabase.channel('presence').on('postgres_changes', { event: '*', schema: 'presence', table: 'user_presence' }, catchUp)

-- When the page closes: navigator.sendBeacon cannot send a JWT, so this runs as anon, with the session's token.
BEGIN;
SELECT set_config('role', 'anon', true), set_config('request.jwt.claims', '{"role":"anon"}', true) \g /dev/null
SELECT presence.release_session_by_token(session_token => :'session_token');
COMMIT;

-- await supabase.rpc('end_session', { session_id: session.session_id })
BEGIN;
SELECT set_config('role', 'authenticated', true), set_config('request.jwt.claims', :'claims', true) \g /dev/null
SELECT presence.end_session(session_id => :'session_id');
COMMIT;
