// postgrest-js, with which supabase-js calls functions, and a server that answers as PostgREST does: that of
// examples/dashboard.

import assert from 'node:assert/strict'
import { PostgrestClient } from '@supabase/postgrest-js'

const { ADDRESS: address } = process.env
const json = { 'content-type': 'application/json' }
const [user] = await (await fetch(`${address}/api/users`)).json()
const request = { method: 'POST', headers: json, body: JSON.stringify({ user_id: user.id }) }
const login = await fetch(`${address}/api/login`, request)
const cookie = login.headers.get('set-cookie').split(';')[0]

const supabase = new PostgrestClient(address, { schema: 'presence', headers: { cookie } })

async function call(name, args) {
  const { data, error } = await supabase.rpc(name, args)
  assert.equal(error, null, name)
  return data
}
const session = await call('start_session', { metadata: { device: 'phone' } })
const { session_id, session_token } = session
assert(session.heartbeat_ms > 0 && session.timeout_ms > session.heartbeat_ms, JSON.stringify(session))
assert.equal(await call('heartbeat', { session_id }), 'ok')
assert.equal(await call('release_session_by_token', { session_token }), true)
const again = await call('start_session', { session_token })
assert.equal(again.session_id, session_id)
assert.equal(await call('end_session_by_token', { session_token }), true)
assert.equal(await call('heartbeat', { session_id }), 'ended')

const { data, error } = await supabase.rpc('start_session', { session_token })
assert(data === null && error.message, 'a session that has ended cannot be resumed')
