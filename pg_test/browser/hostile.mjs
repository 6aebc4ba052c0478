// Browsers that lack something, or forbid it: the session is kept nevertheless.

import assert from 'node:assert/strict'
import { expectChanges, newUser, PAGE, Person, signedIn, untilBeatAfter } from './fixtures.mjs'
import { test, until } from './framework.mjs'

test('the page works in browsers without AbortSignal.any, AbortSignal.timeout, locks, channels and reportError', async () => {
  const ana = await Person.create()
  await ana.context.addInitScript(() => {
    delete AbortSignal.any
    delete AbortSignal.timeout
    delete window.BroadcastChannel
    delete window.reportError
    Object.defineProperty(navigator, 'locks', { value: undefined })
  })
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await untilBeatAfter(ana.user, 2)
  await page.getByRole('button', { name: 'Log out' }).click()
  await page.waitForURL(/\/login$/)
  await expectChanges(ana.user, ['active started', 'inactive ended'])
})

for (const [name, breakStorage] of [
  ['storage that is forbidden', () => Object.defineProperty(window, 'localStorage', { get: () => { throw new DOMException('no', 'SecurityError') } })],
  ['storage that is full', () => { Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError') } }],
]) {
  test(`with ${name} the page has a session of its own, and says so`, async () => {
    const ana = await Person.create()
    await ana.context.addInitScript(breakStorage)
    const warnings = []
    ana.context.on('console', (message) => message.type() === 'warning' && warnings.push(message.text()))
    await ana.signIn(await newUser())
    await ana.sees(ana.user, 'Active')
    await untilBeatAfter(ana.user, 2)
    assert.match(warnings.join(), /pg_presence: the storage cannot be used/)
    await ana.page.getByRole('button', { name: 'Log out' }).click()
    await ana.page.waitForURL(/\/login$/)
    await expectChanges(ana.user, ['active started', 'inactive ended'])
  })
}

test('in connection mode beats go on where the policy of the page forbids workers, and it says so', async () => {
  const ana = await signedIn()
  const { page } = ana
  const warnings = []
  page.on('console', (message) => message.type() === 'warning' && warnings.push(message.text()))
  await page.route('**/login', async (route) => {
    const response = await route.fetch()
    const headers = { ...response.headers(), 'content-security-policy': "default-src 'self'; worker-src 'none'" }
    await route.fulfill({ response, headers })
  })
  await page.goto(`${PAGE}/login`)
  await page.evaluate(async () => {
    const { keepSession } = await import('/pg-presence/index.js')
    window.session = keepSession({ mode: 'connection' })
  })
  // Some browsers report it late; a beat before that proves nothing.
  await until('the warning', () => /pg_presence: the page's policy allows no worker/.test(warnings.join()))
  await untilBeatAfter(ana.user, 4)
})

test('a browser that prefers no language is shown times nevertheless', async () => {
  const ana = await Person.create()
  // As WebKit has it where the locale is C.
  await ana.context.addInitScript(() => Object.defineProperty(navigator, 'languages', { value: ['C'] }))
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await page.getByText('now', { exact: true }).first().waitFor()
})

test('storage with something else in it is no obstacle', async () => {
  const ana = await Person.create()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await page.goto(`${PAGE}/login`)
  await page.evaluate(() => localStorage.setItem('pg_presence', 'not JSON'))
  await page.goto(PAGE)
  await ana.sees(ana.user, 'Active')
  await until('its own', () => page.evaluate(() => JSON.parse(localStorage.getItem('pg_presence')).session_id))
})

test('a storage and a fetch of the application are used', async () => {
  const ana = await Person.create()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await page.goto(`${PAGE}/login`)
  const { stored, calls } = await page.evaluate(async () => {
    const { keepSession } = await import('/pg-presence/index.js')
    const stored = {}
    const calls = []
    await new Promise((resolve) =>
      keepSession({
        name: 'mine',
        storage: {
          getItem: (key) => stored[key] ?? null,
          setItem: (key, value) => (stored[key] = value),
          removeItem: (key) => delete stored[key],
        },
        fetch: (url, init) => (calls.push(url), fetch(url, init)),
        onStatus: (status) => status === 'live' && resolve(),
      }),
    )
    return { stored, calls }
  })
  assert.deepEqual(Object.keys(stored), ['mine'])
  assert.deepEqual(calls, ['/rpc/start_session'])
})
