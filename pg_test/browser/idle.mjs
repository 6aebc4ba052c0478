// The mode `idle` of clients/js: who is connected, and whether somebody is there.

import assert from 'node:assert/strict'
import { advanceClock, changesOf, expectChanges, PAGE, signedIn, sql, untilBeatAfter, withoutSession } from './fixtures.mjs'
import { test, until } from './framework.mjs'

// Keeps a session in the mode idle on a page that has none of its own. With `heartbeat_ms`, as if the server asked for
// beats that often. While the page's `isHolding` is set, beats are withheld, and the first one sets `hasHeld`.
async function keepIdleSession(page, { idleAfter, heartbeat_ms }) {
  await page.evaluate(
    async ([idleAfter, heartbeat_ms]) => {
      const { keepSession } = await import('/pg-presence/index.js')
      window.session = keepSession({
        mode: 'idle',
        idleAfter,
        fetch: async (...args) => {
          if (window.isHolding && /\/heartbeat\w*$/.test(args[0])) {
            window.hasHeld = true
            return new Promise(() => {})
          }
          const response = await fetch(...args)
          if (!heartbeat_ms || !args[0].endsWith('start_session')) return response
          return Response.json({ ...(await response.json()), heartbeat_ms, timeout_ms: 3 * heartbeat_ms })
        },
      })
    },
    [idleAfter, heartbeat_ms],
  )
  await until('live', () => page.evaluate(() => window.session.status === 'live'))
}

// The heartbeats that a person's browser sends from now on, by their functions.
function beatsOf(person) {
  const beats = []
  person.context.on('request', (request) => {
    const [, name] = request.url().match(/\/rpc\/(heartbeat\w*)$/) ?? []
    if (name) beats.push(name)
  })
  return beats
}

const HOUR = 3_600_000

test('in idle mode an untouched page turns yellow, and green again when somebody is back', async () => {
  const [ben, ana] = [await signedIn(), await withoutSession()]
  await keepIdleSession(ana.page, { idleAfter: 2000 })
  await ben.sees(ana.user, 'Idle')
  // Longer than the timeout: the page is open.
  await untilBeatAfter(ana.user, 31)
  ana.moveMouse(ana.page)
  await ben.sees(ana.user, 'Active')
  await until('the return is written', async () => (await changesOf(ana.user)).length >= 3)
  assert.deepEqual((await changesOf(ana.user)).slice(0, 3), ['active started', 'idle idle', 'active returned'])
})

test('in idle mode the first activity sends a heartbeat at once, not when the next one is due', async () => {
  const ana = await withoutSession()
  await keepIdleSession(ana.page, { idleAfter: 30_000, heartbeat_ms: HOUR })
  const beats = beatsOf(ana)
  // The page finds out that the time has come.
  await advanceClock(ana.page, HOUR)
  await ana.page.evaluate(() => window.dispatchEvent(new Event('online')))
  await until('an idle beat', () => beats.length)
  assert.deepEqual(beats, ['heartbeat_idle'])
  await ana.page.mouse.move(40, 50)
  await until('a beat', () => beats.length > 1)
  assert.deepEqual(beats, ['heartbeat_idle', 'heartbeat'])
})

test('activity while an idle beat is on its way is told after it', async () => {
  const ana = await withoutSession()
  await keepIdleSession(ana.page, { idleAfter: 30_000, heartbeat_ms: HOUR })
  const beats = beatsOf(ana)
  await ana.page.route('**/rpc/heartbeat_idle', async (route) => {
    await ana.page.mouse.move(40, 50)
    await route.continue()
  })
  await advanceClock(ana.page, HOUR)
  await ana.page.evaluate(() => window.dispatchEvent(new Event('online')))
  await until('both', () => beats.length > 1)
  assert.deepEqual(beats, ['heartbeat_idle', 'heartbeat'])
})

test('of several tabs in idle mode one that is used is enough, whichever of them beats', async () => {
  const ana = await withoutSession()
  const pages = [ana.page, await ana.open('/login'), await ana.open('/login')]
  const beats = beatsOf(ana)
  // The page itself is in use, however late the tests are.
  await ana.page.evaluate(() => (window.use = setInterval(() => document.dispatchEvent(new Event('mousemove')), 200)))
  for (const page of pages) await keepIdleSession(page, { idleAfter: 20_000 })
  await untilBeatAfter(ana.user, 25)
  assert.deepEqual(new Set(beats), new Set(['heartbeat']))
  await expectChanges(ana.user, ['active started'])
  await ana.page.evaluate(() => clearInterval(window.use))
  await expectChanges(ana.user, ['active started', 'idle idle'])
})

test('the other tabs know when somebody was last there, not only that somebody was', async () => {
  const ana = await withoutSession()
  await keepIdleSession(ana.page, { idleAfter: 20_000, heartbeat_ms: HOUR })
  const other = await ana.open('/login')
  await other.evaluate(() => {
    window.told = []
    new BroadcastChannel('pg_presence').onmessage = ({ data }) => data.activeAt && window.told.push(data.activeAt)
  })
  // Three times, each as soon as it is noted.
  const last = await ana.page.evaluate(async () => {
    for (let count = 0; ; count++) {
      const at = Date.now()
      document.dispatchEvent(new Event('scroll'))
      if (count === 2) return at
      const notedBy = Date.now()
      while (Date.now() <= notedBy + 1000) await new Promise((resolve) => setTimeout(resolve, 10))
    }
  })
  await until('the last is told', () => other.evaluate((last) => window.told.at(-1) >= last, last))
})

test('the other tabs know of a page that is opened or comes back, and of a heartbeat that the application sends', async () => {
  const ana = await withoutSession()
  const { page } = ana
  const other = await ana.open('/login')
  await other.evaluate(() => {
    window.told = 0
    new BroadcastChannel('pg_presence').onmessage = ({ data }) => data.activeAt && (window.told = data.activeAt)
  })
  const isTold = (what, since) => until(`${what} is told`, () => other.evaluate((since) => window.told >= since, since))
  const opened = await page.evaluate(() => Date.now())
  await keepIdleSession(page, { idleAfter: 1000, heartbeat_ms: HOUR })
  await isTold('the opening', opened)
  const doLater = async (work) => {
    // A quarter of `idleAfter` later nothing is left that will be told by itself.
    await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 500)))
    return page.evaluate(`(${work})(Date.now())`)
  }
  await isTold('the heartbeat', await doLater((at) => (window.session.heartbeat(), at)))
  await isTold('the return', await doLater((at) => {
    for (const type of ['pagehide', 'pageshow']) dispatchEvent(new PageTransitionEvent(type, { persisted: true }))
    return at
  }))
})

test('a tab that is used corrects another one that has said that nobody is there', async () => {
  const ana = await withoutSession()
  await keepIdleSession(ana.page, { idleAfter: HOUR, heartbeat_ms: HOUR })
  const beats = beatsOf(ana)
  await ana.page.evaluate(() => {
    const { token } = window.session.session
    const now = Date.now()
    new BroadcastChannel('pg_presence').postMessage({ token, beatAt: now, nextBeatAt: now + 3_000_000, isIdle: true })
  })
  await until('a beat', () => beats.length)
  assert.deepEqual(beats, ['heartbeat'])
})

test('a heartbeat that the application sends is one of somebody who is there', async () => {
  const ana = await withoutSession()
  await keepIdleSession(ana.page, { idleAfter: 30_000, heartbeat_ms: HOUR })
  await advanceClock(ana.page, HOUR)
  const beats = beatsOf(ana)
  await ana.page.evaluate(() => window.session.heartbeat())
  assert.deepEqual(beats, ['heartbeat'])
})

// Grants Idle Detection to a page, or takes that back, and sets what the browser knows of who is at the computer.
async function computerOf(person) {
  const tab = await person.context.newCDPSession(person.page)
  const { targetInfo } = await tab.send('Target.getTargetInfo')
  const browser = await person.context.browser().newBrowserCDPSession()
  const { browserContextId } = targetInfo
  const permission = { permission: { name: 'idle-detection' }, setting: 'granted', origin: PAGE }
  return {
    grant: () => browser.send('Browser.setPermission', { ...permission, browserContextId }),
    revoke: () => browser.send('Browser.resetPermissions', { browserContextId }),
    set: (isUserActive, isScreenUnlocked) => tab.send('Emulation.setIdleOverride', { isUserActive, isScreenUnlocked }),
  }
}

test('where Idle Detection is granted, the whole computer counts, and nobody is asked for it', async () => {
  const ana = await withoutSession()
  const { page } = ana
  await page.addInitScript(() => {
    window.IdleDetector.requestPermission = () => (window.hasAsked = true)
  })
  const computer = await computerOf(ana)
  await computer.set(true, true)
  await keepIdleSession(page, { idleAfter: 1000 })
  const beats = beatsOf(ana)
  const untilBeat = async (name) => {
    beats.length = 0
    // The first may have been decided before.
    await until(`a ${name}`, () => beats.slice(1).includes(name))
  }
  await untilBeat('heartbeat_idle')
  // Nobody touches the page, but somebody is at the computer.
  await computer.grant()
  await untilBeat('heartbeat')
  for (const [isUserActive, isScreenUnlocked] of [[true, false], [false, true]]) {
    await computer.set(isUserActive, isScreenUnlocked)
    await untilBeat('heartbeat_idle')
    // What the page does by itself is nobody at the computer.
    beats.length = 0
    await page.evaluate(() => document.dispatchEvent(new Event('scroll')))
    await until('beats', () => beats.length > 1)
    assert.ok(!beats.includes('heartbeat'))
    // The application knows better.
    await page.evaluate(() => window.session.heartbeat())
    await until('a beat', () => beats.includes('heartbeat'))
    await computer.set(true, true)
    await untilBeat('heartbeat')
  }
  // A page that is opened with the permission.
  await page.reload()
  await keepIdleSession(page, { idleAfter: 1000 })
  await advanceClock(page, HOUR)
  await untilBeat('heartbeat')
  // Without it the page alone counts again.
  await computer.revoke()
  await untilBeat('heartbeat_idle')
  assert.equal(await page.evaluate(() => window.hasAsked), undefined)
})

test('a page in idle mode that is closed is released as any other', async () => {
  const ana = await withoutSession()
  await keepIdleSession(ana.page, { idleAfter: 1000 })
  await expectChanges(ana.user, ['active started', 'idle idle'])
  // A beat in progress might arrive after the release.
  await ana.page.evaluate(() => (window.isHolding = true))
  await until('no beat is in progress', () => ana.page.evaluate(() => window.hasHeld))
  await ana.leave()
  await expectChanges(ana.user, ['active started', 'idle idle', 'inactive released'])
  const [{ ended_at }] = await sql('SELECT ended_at FROM presence.user_sessions WHERE user_id = $1', [ana.user.id])
  assert.equal(ended_at, null)
})
