// The dots: who is green, who is gray, and when that changes.

import assert from 'node:assert/strict'
import { changesAre, hide, lastSeen, newUser, ownBrowser, PAGE, Person, show, sql, untilHeardAfter, untilSilentFor, visit } from './stage.mjs'
import { figure, test, until } from './test.mjs'

test('after the login the own user is green', async () => {
  const ana = await Person.sit()
  await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
})

test('a second browser makes both users green, in both', async () => {
  const [ana, ben] = [await Person.sit(), await Person.sit()]
  await ana.signIn(await newUser())
  await ben.signIn(await newUser())
  for (const who of [ana, ben]) {
    await who.sees(ana.user, 'Active')
    await who.sees(ben.user, 'Active')
  }
})

test('a browser that is killed turns gray after the timeout', async () => {
  const ana = await Person.sit()
  await ana.signIn(await newUser())
  const { browser, kill } = await ownBrowser()
  const ben = await Person.sit({}, browser)
  await ben.signIn(await newUser())
  await ana.sees(ben.user, 'Active')
  const begun = Date.now()
  kill()
  await ana.sees(ben.user, 'Inactive')
  figure(`gray ${((Date.now() - begun) / 1000).toFixed(1)} s after the kill`)
  await changesAre(ben.user, ['active started', 'inactive timed_out'])
  const [{ seconds }] = await sql(
    `SELECT extract(epoch FROM changed_at - last_seen)::float AS seconds FROM presence.presence_changes
     WHERE user_id = $1 AND status = 'inactive'`,
    [ben.user.id],
  )
  assert.ok(seconds >= 30, `gray after ${seconds} s: before the timeout`)
})

test('a browser that is closed turns gray within the grace', async () => {
  const [ana, ben] = [await Person.sit(), await Person.sit()]
  await ana.signIn(await newUser())
  await ben.signIn(await newUser())
  await ana.sees(ben.user, 'Active')
  // A beat under way might arrive after the goodbye.
  ben.still()
  await untilSilentFor(ben.user, 2.5)
  const begun = Date.now()
  await ben.leave()
  await ana.sees(ben.user, 'Inactive')
  figure(`gray ${((Date.now() - begun) / 1000).toFixed(1)} s after the close`)
  await changesAre(ben.user, ['active started', 'inactive released'])
})

test('a logout in one browser turns gray in the other without a refresh', async () => {
  const [ana, ben] = [await Person.sit(), await Person.sit()]
  await ana.signIn(await newUser())
  await ben.signIn(await newUser())
  await ana.sees(ben.user, 'Active')
  const told = await ana.watch(ben.user)
  const begun = Date.now()
  await ben.page.getByRole('button', { name: 'Log out' }).click()
  await ana.sees(ben.user, 'Inactive')
  figure(`gray ${Date.now() - begun} ms after the click`)
  await until('the stream tells', async () => (await told()).length)
  assert.deepEqual(await told(), [false])
  await changesAre(ben.user, ['active started', 'inactive ended'])
  await ben.page.waitForURL(/\/login$/)
})

test('an untouched page turns gray, and green again at the first move', async () => {
  const ana = await Person.sit()
  await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  ana.still()
  await ana.sees(ana.user, 'Inactive')
  await ana.page.mouse.move(30, 40)
  await ana.sees(ana.user, 'Active')
  await changesAre(ana.user, ['active started', 'inactive timed_out', 'active resumed'])
})

test('two tabs are one session, and closing one leaves the user green', async () => {
  const [ana, ben] = [await Person.sit(), await Person.sit()]
  await ben.signIn(await newUser())
  const page = await ana.signIn(await newUser())
  const second = await ana.open()
  await ana.sees(ana.user, 'Active', second)
  const sessions = await sql('SELECT session_count AS n FROM presence.presence_of(ARRAY[$1::uuid])', [ana.user.id])
  assert.equal(Number(sessions[0].n), 1)
  await page.evaluate(() => {
    window.others = new BroadcastChannel('presence')
    window.others.onmessage = ({ data }) => (window.hasLeft ||= data.isLeaving)
  })
  // Nobody touches the other tab; that it still contradicts the one that leaves is the last that is heard of it.
  ana.still()
  await untilSilentFor(ana.user, 2.5)
  const [{ leftAt }] = await sql('SELECT clock_timestamp() AS "leftAt"')
  await ana.leave(second)
  await until('the other tab says that it leaves', () => page.evaluate(() => window.hasLeft))
  await ben.sees(ana.user, 'Inactive')
  await changesAre(ana.user, ['active started', 'inactive timed_out'])
  assert.ok((await lastSeen(ana.user)) > leftAt, 'not heard from since the close')
})

test('a reload never flickers in another browser', async () => {
  const [ana, ben] = [await Person.sit(), await Person.sit()]
  await ana.signIn(await newUser())
  await ben.signIn(await newUser())
  await ana.sees(ben.user, 'Active')
  const told = await ana.watch(ben.user)
  for (let reload = 0; reload < 3; reload++) {
    await ben.page.reload()
    await ben.sees(ben.user, 'Active')
  }
  // As long as the grace of what the reload has left behind.
  await untilHeardAfter(ben.user, 11)
  await ana.sees(ben.user, 'Active')
  assert.ok(!(await told()).includes(false), 'gray in between')
  await changesAre(ben.user, ['active started'])
})

test('a goodbye that arrives after the next page has started is contradicted', async () => {
  const ana = await Person.sit()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  ana.still()
  let releasedAt
  await page.route('**/rpc/start_session', async (route) => {
    const answer = await route.fetch()
    const { session_token } = route.request().postDataJSON()
    await ana.context.request.post(`${PAGE}/rpc/release_session_by_token`, { data: { session_token } })
    ;[{ releasedAt }] = await sql('SELECT clock_timestamp() AS "releasedAt"')
    await route.fulfill({ response: answer })
  })
  await page.reload()
  await until('released', () => releasedAt)
  await until('heard from since', async () => (await lastSeen(ana.user)) > releasedAt)
  await ana.sees(ana.user, 'Active')
})

test('many tabs leave the server reachable, and the one that is looked at shows the truth', async () => {
  const [ana, ben] = [await Person.sit(), await newUser()]
  const first = await ana.signIn(await newUser())
  await ana.sees(ben, 'Inactive')
  await hide(first)
  for (let tab = 2; tab <= 7; tab++) {
    const page = await ana.open()
    await ana.sees(ana.user, 'Active', page)
    await hide(page)
  }
  await visit(ben)
  await show(first)
  await ana.sees(ben, 'Active')
  await first.getByRole('button', { name: 'Log out' }).click()
  await first.waitForURL(/\/login$/)
})

test('whoever signs in after somebody else in the same browser ends their session', async () => {
  const ana = await Person.sit()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  const ben = await newUser()
  const second = await ana.open('/login')
  await second.locator(`button[data-user="${ben.id}"]`).click()
  await ana.sees(ben, 'Active', second)
  await changesAre(ana.user, ['active started', 'inactive ended'])
  // The first tab is Ben's, too, now.
  await second.getByRole('button', { name: 'Log out' }).click()
  await page.waitForURL(/\/login$/)
  await changesAre(ben, ['active started', 'inactive ended'])
})

test('tabs that are restored together, with a token that is no good, still share one session', async () => {
  const ana = await Person.sit()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await page.goto(`${PAGE}/login`)
  await page.evaluate(() => {
    localStorage.removeItem('presence:session')
    localStorage.setItem('presence:token', 'that of a session which has ended')
  })
  const nobody = 'SELECT presence.end_session(session_id) FROM presence.start_session(user_id => $1, session_token => $2)'
  await sql(nobody, [ana.user.id, 'that of a session which has ended'])
  const started = []
  ana.context.on('response', async (answer) => {
    if (answer.url().endsWith('/rpc/start_session') && answer.ok()) started.push((await answer.json()).session_id)
  })
  await Promise.all([ana.open(), ana.open(), ana.open()])
  await until('all have started', () => started.length === 3)
  assert.equal(new Set(started).size, 1)
})

test('after signing out everywhere a page that is opened again shows the login, and one sign-in is enough', async () => {
  const ana = await Person.sit()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await page.goto(`${PAGE}/login`)
  await sql('SELECT presence.end_user_sessions($1)', [ana.user.id])
  await page.goto(PAGE)
  await page.waitForURL(/\/login$/)
  // It may also happen while somebody is at the login.
  const [{ id }] = await sql('SELECT id FROM presence.user_sessions WHERE user_id = $1', [ana.user.id])
  await page.evaluate((id) => localStorage.setItem('presence:session', id), id)
  await page.locator(`button[data-user="${ana.user.id}"]`).click()
  await ana.sees(ana.user, 'Active')
})

test('an end that is told late is none of a later login', async () => {
  const [ana, ben] = [await Person.sit(), await Person.sit()]
  const page = await ana.signIn(await newUser())
  await ben.signIn(await newUser())
  await ben.sees(ana.user, 'Active')
  await page.evaluate(() => new BroadcastChannel('presence').postMessage({ isEnded: true, token: 'of a session before' }))
  await untilHeardAfter(ana.user, 2)
  assert.equal(page.url(), `${PAGE}/`)
  await changesAre(ana.user, ['active started'])
})

test('a session that the server ends shows the login in every tab', async () => {
  const ana = await Person.sit()
  await ana.signIn(await newUser())
  const second = await ana.open()
  await ana.sees(ana.user, 'Active', second)
  await sql('SELECT presence.end_user_sessions($1)', [ana.user.id])
  await ana.page.waitForURL(/\/login$/)
  await second.waitForURL(/\/login$/)
})
