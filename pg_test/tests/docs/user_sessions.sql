-- A table of sessions as applications make one, with rows in every state. The tokens are stored as they are.
SET ROLE owner;
CREATE TABLE public.user_sessions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL REFERENCES app.users,
    auth_id uuid NOT NULL,
    session_token text NOT NULL UNIQUE,
    is_active boolean NOT NULL DEFAULT true,
    last_activity timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL DEFAULT now() + interval '7 days'
);
ALTER TABLE public.user_sessions ENABLE ROW LEVEL SECURITY;
CREATE POLICY app_can_do_everything ON public.user_sessions TO app USING (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON public.user_sessions TO app;
RESET ROLE;
ALTER PUBLICATION supabase_realtime ADD TABLE public.user_sessions;
INSERT INTO public.user_sessions (id, user_id, auth_id, session_token, is_active, last_activity)
SELECT state.id::uuid, u.id, u.id, state.token, state.is_active, now() - state.silence
  FROM (VALUES ('00000000-0000-4000-8000-000000000001', 'Ana', 'the token of the browser of Ana', true, interval '10 s'),
               ('00000000-0000-4000-8000-000000000002', 'Ana', 'the token of an old laptop', true, interval '2 days'),
               ('00000000-0000-4000-8000-000000000003', 'Ben', 'the token after a logout', false, interval '1 hour'),
               ('00000000-0000-4000-8000-000000000004', 'Ben', 'short token', true, interval '10 s'))
       AS state (id, name, token, is_active, silence)
  JOIN app.users u USING (name);
