// The dots: which users are green, which are gray, and when that changes.

import assert from 'node:assert/strict'
import { changesOf, expectChanges, hide, lastSeen, launchBrowser, newUser, PAGE, Person, show, signedIn, sql, untilBeatAfter, untilSilentFor, visit } from './fixtures.mjs'
import { report, test, until } from './framework.mjs'

const GRACE = 10_000 // how long a page that has been left may come back, in milliseconds

test('after the login the signed-in user is green', async () => {
  const ana = await Person.create()
  await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
})

test('a second browser makes both users green, in both', async () => {
  const [ana, ben] = [await Person.create(), await Person.create()]
  await ana.signIn(await newUser())
  await ben.signIn(await newUser())
  for (const who of [ana, ben]) {
    await who.sees(ana.user, 'Active')
    await who.sees(ben.user, 'Active')
  }
})

test('a browser that is killed turns gray after the timeout', async () => {
  const ana = await Person.create()
  await ana.signIn(await newUser())
  const { browser, kill } = await launchBrowser()
  const ben = await Person.create({}, browser)
  await ben.signIn(await newUser())
  await ana.sees(ben.user, 'Active')
  const begun = Date.now()
  kill()
  await ana.sees(ben.user, 'Inactive')
  report(`gray ${((Date.now() - begun) / 1000).toFixed(1)} s after the kill`)
  await expectChanges(ben.user, ['active started', 'inactive timed_out'])
  const [{ seconds }] = await sql(
    `SELECT extract(epoch FROM changed_at - last_seen)::float AS seconds FROM presence.presence_changes
     WHERE user_id = $1 AND status = 'inactive'`,
    [ben.user.id],
  )
  assert.ok(seconds >= 30, `gray after ${seconds} s: before the timeout`)
})

test('a browser that is closed turns gray within the grace', async () => {
  const [ana, ben] = [await Person.create(), await Person.create()]
  await ana.signIn(await newUser())
  await ben.signIn(await newUser())
  await ana.sees(ben.user, 'Active')
  // A beat in progress might arrive after the release.
  await ben.stopMoving()
  await untilSilentFor(ben.user, 2.5)
  const begun = Date.now()
  await ben.leave()
  await ana.sees(ben.user, 'Inactive')
  report(`gray ${((Date.now() - begun) / 1000).toFixed(1)} s after the close`)
  await expectChanges(ben.user, ['active started', 'inactive released'])
})

test('a logout in one browser turns gray in the other without a refresh', async () => {
  const [ana, ben] = [await Person.create(), await Person.create()]
  await ana.signIn(await newUser())
  await ben.signIn(await newUser())
  await ana.sees(ben.user, 'Active')
  const seen = await ana.watchStatus(ben.user)
  const begun = Date.now()
  await ben.page.getByRole('button', { name: 'Log out' }).click()
  await ana.sees(ben.user, 'Inactive')
  report(`gray ${Date.now() - begun} ms after the click`)
  await until('the stream reports it', async () => (await seen()).length)
  assert.deepEqual(await seen(), [false])
  await expectChanges(ben.user, ['active started', 'inactive ended'])
  await ben.page.waitForURL(/\/login$/)
})

test('an untouched page turns gray, and green again at the first mouse move', async () => {
  const ana = await Person.create()
  await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await ana.stopMoving()
  await ana.sees(ana.user, 'Inactive')
  await ana.page.mouse.move(30, 40)
  await ana.sees(ana.user, 'Active')
  await expectChanges(ana.user, ['active started', 'inactive timed_out', 'active resumed'])
})

test('two tabs are one session, and closing one leaves the user green', async () => {
  const ben = await signedIn()
  let isLate
  do {
    const ana = await Person.create()
    const page = await ana.signIn(await newUser())
    const second = await ana.open()
    await ana.sees(ana.user, 'Active', second)
    const sessions = await sql('SELECT session_count AS n FROM presence.presence_of(ARRAY[$1::uuid])', [ana.user.id])
    assert.equal(Number(sessions[0].n), 1)
    await page.evaluate(() => {
      window.others = new BroadcastChannel('pg_presence')
      window.others.onmessage = ({ data }) => (window.hasLeft ||= data.isLeaving)
    })
    // Nobody touches the other tab; its last beat is the one that undoes the release of the closed tab.
    await ana.stopMoving()
    await untilSilentFor(ana.user, 2.5)
    const [{ leftAt }] = await sql('SELECT clock_timestamp() AS "leftAt"')
    await ana.leave(second)
    await until('the closed tab announces that it leaves', () => page.evaluate(() => window.hasLeft))
    await ben.sees(ana.user, 'Inactive')
    assert.ok((await lastSeen(ana.user)) > leftAt, 'no beat since the close')
    await until('it is written', async () => (await changesOf(ana.user)).length >= 2)
    // A release that takes longer than the five seconds which the page allows for proves nothing.
    isLate = await wasReleasedAfter(ana.user, leftAt, 5)
    if (!isLate) await expectChanges(ana.user, ['active started', 'inactive timed_out'])
  } while (isLate)
})

// Whether a user has become inactive by a release so many seconds after a time, or later.
async function wasReleasedAfter(user, time, seconds) {
  const released = `SELECT FROM presence.presence_changes
                    WHERE user_id = $1 AND reason = 'released' AND changed_at > $2::timestamptz + $3 * interval '1 s'`
  return (await sql(released, [user.id, time, seconds + GRACE / 1000])).length > 0
}

test('a reload is never shown as gray in another browser', async () => {
  const ana = await Person.create()
  await ana.signIn(await newUser())
  let slowest
  do {
    const ben = await Person.create()
    await ben.signIn(await newUser())
    await ana.sees(ben.user, 'Active')
    const seen = await ana.watchStatus(ben.user)
    slowest = 0
    for (let reload = 0; reload < 3; reload++) {
      const begun = Date.now()
      const isStarted = ben.page.waitForResponse('**/rpc/start_session')
      await Promise.all([isStarted, ben.page.reload()])
      slowest = Math.max(slowest, Date.now() - begun)
      await ben.sees(ben.user, 'Active')
    }
    // For the grace period of the page that was left by the reload.
    await untilBeatAfter(ben.user, 11)
    await ana.sees(ben.user, 'Active')
    // A page that takes longer than the grace is gray in between: it proves nothing.
    if (slowest < GRACE) {
      assert.ok(!(await seen()).includes(false), 'gray in between')
      await expectChanges(ben.user, ['active started'])
    }
  } while (slowest >= GRACE)
})

test('a release that arrives after the next page has started is undone by a beat', async () => {
  const ana = await signedIn()
  const { page } = ana
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
  await until('a beat since', async () => (await lastSeen(ana.user)) > releasedAt)
  await ana.sees(ana.user, 'Active')
})

test('with many tabs the server stays reachable, and the visible one is up to date', async () => {
  const [ana, ben] = [await Person.create(), await newUser()]
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

test('signing in as another user in another tab ends the former session, and the first tab says so at once', async () => {
  const ana = await Person.create()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  const ben = await newUser()
  const second = await ana.open('/login')
  await second.locator(`button[data-user="${ben.id}"]`).click()
  // The first tab says so, and does not become Ben's until somebody wants that.
  await page.getByText('Another user has signed in in another tab.').waitFor()
  await ana.sees(ben, 'Active', second)
  await expectChanges(ana.user, ['active started', 'inactive ended'])
  await page.getByRole('button', { name: 'Reload' }).click()
  await ana.sees(ben, 'Active', page)
  await until('the name', async () => (await page.locator('#own-name').textContent()) === ben.name)
  // Told by the other tab and by the stream, it signs out once: a second time might hit a later login.
  let signOuts = 0
  const refused = page.waitForResponse((answer) => answer.url().includes('/api/events') && answer.status() === 401)
  refused.catch(() => {}) // if the test ends before
  await page.route('**/api/logout', async (route) => {
    signOuts += 1
    await refused
    await route.continue()
  })
  await second.getByRole('button', { name: 'Log out' }).click()
  await page.waitForURL(/\/login$/)
  await expectChanges(ben, ['active started', 'inactive ended'])
  assert.equal(signOuts, 1)
})

test('tabs that are restored together with an unusable token still share one session', async () => {
  const ana = await Person.create()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await page.goto(`${PAGE}/login`)
  await page.evaluate(() => {
    localStorage.setItem('pg_presence', JSON.stringify({ token: 'the token of an ended session' }))
  })
  const ended = 'SELECT presence.end_session(session_id) FROM presence.start_session(user_id => $1, session_token => $2)'
  await sql(ended, [ana.user.id, 'the token of an ended session'])
  const started = []
  ana.context.on('response', (answer) => {
    if (!answer.url().endsWith('/rpc/start_session') || !answer.ok()) return
    // A page that is closed meanwhile has no answer any more.
    answer.json().then(({ session_id }) => started.push(session_id), () => {})
  })
  await Promise.all([ana.open(), ana.open(), ana.open()])
  await until('all have started', () => started.length === 3)
  assert.equal(new Set(started).size, 1)
})

test('after signing out everywhere a reopened page shows the login, and one sign-in is enough', async () => {
  const ana = await Person.create()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await page.goto(`${PAGE}/login`)
  await sql('SELECT presence.end_user_sessions($1)', [ana.user.id])
  // It may turn to the login before it has loaded.
  await page.goto(PAGE, { waitUntil: 'commit' })
  await page.waitForURL(/\/login$/)
  // Signing out everywhere may also happen while the login is shown.
  const [{ id }] = await sql('SELECT id FROM presence.user_sessions WHERE user_id = $1', [ana.user.id])
  await page.evaluate((session_id) => {
    const token = 'the token of an ended session'
    localStorage.setItem('pg_presence', JSON.stringify({ token, session_id, identity: 'an earlier login' }))
  }, id)
  await page.locator(`button[data-user="${ana.user.id}"]`).click()
  await ana.sees(ana.user, 'Active')
})

test('a late message about the end of an earlier session does not end a later login', async () => {
  const [ana, ben] = [await Person.create(), await Person.create()]
  const page = await ana.signIn(await newUser())
  await ben.signIn(await newUser())
  await ben.sees(ana.user, 'Active')
  await page.evaluate(() => new BroadcastChannel('pg_presence').postMessage({ isEnded: true, token: 'of an earlier session' }))
  await untilBeatAfter(ana.user, 2)
  assert.equal(page.url(), `${PAGE}/`)
  await expectChanges(ana.user, ['active started'])
})

test('a session that the server ends shows the login in every tab', async () => {
  const ana = await Person.create()
  await ana.signIn(await newUser())
  const second = await ana.open()
  await ana.sees(ana.user, 'Active', second)
  await sql('SELECT presence.end_user_sessions($1)', [ana.user.id])
  await ana.page.waitForURL(/\/login$/)
  await second.waitForURL(/\/login$/)
})
