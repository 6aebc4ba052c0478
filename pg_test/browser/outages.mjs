// Outages and errors, and what the page shows then.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { hide, newUser, PAGE, Person, pgCtl, show, sql, visit } from './fixtures.mjs'
import { alone, test, until } from './framework.mjs'

const notice = (page) => page.locator('#notice')
const showsLive = (page) => until('live', async () => (await page.locator('#stream-word').textContent()) === 'Live')

alone('the page reports an unreachable database, and is up to date when it is back', async () => {
  const ana = await Person.create()
  const page = await ana.signIn(await newUser())
  const [ben, cleo] = [await newUser(), await newUser()]
  const leave = await visit(ben)
  await ana.sees(ben, 'Active')
  await showsLive(page)
  leave()
  await pgCtl('stop', '--mode=fast')
  await page.getByText('The database cannot be reached. What you see is as of').waitFor()
  assert.equal(await page.locator('#stream-word').textContent(), 'Offline')
  // Nobody is signed out by this, or shown as signed out.
  await page.getByRole('button', { name: 'Log out' }).click()
  await page.getByText('You are still signed in. The database cannot be reached at the moment.').waitFor()
  const login = await ana.open('/login')
  await login.getByText('The database cannot be reached at the moment.').waitFor()
  await pgCtl('start')
  await login.locator('button[data-user]').first().waitFor()
  await showsLive(page)
  await until('no notice', () => notice(page).isHidden())
  await visit(cleo)
  await ana.sees(cleo, 'Active')
  await ana.sees(ana.user, 'Active')
  // No beat since before the stop.
  await ana.sees(ben, 'Inactive')
})

alone('the page recovers from a crash of the database by itself', async () => {
  const ana = await Person.create()
  const page = await ana.signIn(await newUser())
  const ben = await newUser()
  await showsLive(page)
  await pgCtl('restart', '--mode=immediate')
  await visit(ben)
  await ana.sees(ben, 'Active')
  await showsLive(page)
})

alone('a terminated connection is replaced, and no change is missed', async () => {
  const ana = await Person.create()
  await ana.signIn(await newUser())
  const ben = await newUser()
  await sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'dashboard'")
  await visit(ben)
  await ana.sees(ben, 'Active')
})

alone('a page that opens its stream while the database is down shows why it fails', async () => {
  const ana = await Person.create()
  const page = await ana.signIn(await newUser())
  await showsLive(page)
  await pgCtl('stop', '--mode=fast')
  await hide(page)
  await show(page)
  await page.getByText('The database cannot be reached. What you see').waitFor()
  await pgCtl('start')
  await showsLive(page)
})

alone('forged notifications hide no change for long', async () => {
  const ana = await Person.create()
  const page = await ana.signIn(await newUser())
  const [ben, cleo] = [await newUser(), await newUser()]
  await showsLive(page)
  const [{ epoch, seq }] = await sql('SELECT epoch, seq::float FROM presence.presence_cursor()')
  const forge = (seq, changes) => sql("SELECT pg_notify('presence', $1)", [JSON.stringify({ v: 1, epoch, prev: 0, seq, changes })])
  const change = { seq: seq + 1_000_000, user_id: cleo.id, status: 'active', at: '' }
  await forge(seq, [change])
  await forge(seq + 1_000_000, [change, { ...change, user_id: 'robert' }])
  // Without changes, as when there are many at once.
  await visit(ben)
  await forge(seq + 1_000_001, undefined)
  await visit(cleo)
  await ana.sees(ben, 'Active')
  await ana.sees(cleo, 'Active')
  // Received, not only found where everything is read again: periodically, or still because of the forged ones.
  await until('a change is received', async () => {
    await visit(cleo)
    await ana.sees(cleo, 'Active')
    await sql('SELECT presence.end_user_sessions($1)', [cleo.id])
    await ana.sees(cleo, 'Inactive')
    return readFileSync(process.env.PAGE_LOG, 'utf8').includes(`${cleo.name} is inactive`)
  })
  assert.equal(await page.locator('#stream-word').textContent(), 'Live')
})

test('a browser that was offline beats again once it is online', async () => {
  const ana = await Person.create()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await ana.context.setOffline(true)
  await until('inactive', async () => {
    const [{ online }] = await sql('SELECT presence.is_online($1) AS online', [ana.user.id])
    return !online
  })
  await ana.context.setOffline(false)
  await ana.sees(ana.user, 'Active')
  await until('no notice', () => notice(page).isHidden())
})

test('invalid requests are refused with a clear message', async () => {
  const ana = await Person.create()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  const [foreign] = await sql('SELECT session_id AS id FROM presence.start_session(user_id => gen_random_uuid())')
  const ask = async (path, body, { as = page.request, type = 'application/json' } = {}) => {
    const answer = await as.post(PAGE + path, { data: Buffer.from(body), headers: { 'Content-Type': type } })
    const text = await answer.text()
    assert.doesNotMatch(text, /panic|backtrace|\.rs|DbError|SELECT/)
    return [answer.status(), JSON.parse(text).message ?? JSON.parse(text)]
  }
  const stranger = (await Person.create()).context.request
  const nobody = '{"user_id":"00000000-0000-4000-8000-00000000ffff"}'
  assert.deepEqual(await ask('/api/login', nobody), [404, 'There is no such user. Please choose another.'])
  assert.deepEqual(await ask('/api/login', '{"user_id":"robert"}'), [400, 'That is not a valid id: ids are UUIDs.'])
  assert.deepEqual(await ask('/rpc/heartbeat', JSON.stringify({ session_id: foreign.id })), [200, 'unknown'])
  assert.deepEqual(await ask('/rpc/heartbeat', '{"session_id":7}'), [400, 'The request body is not the expected JSON.'])
  assert.deepEqual(await ask('/rpc/heartbeat', '{"session_id":'), [400, 'The request body is not the expected JSON.'])
  assert.deepEqual(await ask('/rpc/heartbeat', '{}', { type: 'text/plain' }), [
    400,
    'Please send JSON, with the content type application/json.',
  ])
  assert.deepEqual(await ask('/rpc/heartbeat', ' '.repeat(5000)), [413, 'The request is too large: the limit is 4 kB.'])
  assert.deepEqual(await ask('/rpc/start_session', '{}', { as: stranger }), [401, 'You are signed out. Please sign in again.'])
  for (const by of ['release', 'end']) {
    assert.deepEqual(await ask(`/rpc/${by}_session_by_token`, '{"session_token":"guessed"}', { as: stranger }), [200, false])
  }
  for (const session of ['{"metadata":{"page":"\\u0000"}}', '{"session_token":"\\u0000 is no character of a token"}']) {
    assert.deepEqual(await ask('/rpc/start_session', session), [400, 'The request contains an invalid value.'])
  }
  assert.deepEqual(await ask('/rpc/forget_user', '{}'), [404, 'There is no such page.'])
  const weak = await ask('/rpc/start_session', '{"session_token":"short"}')
  assert.equal(weak[0], 400)
  await sql('SELECT presence.end_session($1)', [foreign.id])
})

test('a user who is deleted while signed in sees the login', async () => {
  const ana = await Person.create()
  await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await sql('DELETE FROM app.users WHERE id = $1', [ana.user.id])
  await ana.page.waitForURL(/\/login$/)
})

alone('the dashboard did not run as superuser, and did not panic', async () => {
  const [{ names }] = await sql(
    "SELECT array_agg(DISTINCT usename::text) AS names FROM pg_stat_activity WHERE application_name = 'dashboard'",
  )
  assert.deepEqual(names ?? ['dashboard'], ['dashboard'])
  const [{ rights }] = await sql(
    `SELECT rolsuper OR rolbypassrls OR pg_has_role('dashboard', 'pg_write_all_data', 'member')
         OR has_type_privilege('dashboard', 'presence._service_marker', 'usage') AS rights
     FROM pg_roles WHERE rolname = 'dashboard'`,
  )
  assert.equal(rights, false)
  assert.doesNotMatch(readFileSync(process.env.PAGE_LOG, 'utf8'), /panicked/)
})
