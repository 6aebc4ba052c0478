// The package in WebKit: the one of the distribution, WebKitGTK. Playwright wants one of its own.

import assert from 'node:assert/strict'
import { expectChanges, newUser, PAGE, sessionsOf, temporaryHome, use } from './fixtures.mjs'
import { alone } from './framework.mjs'
import { startWebDriver } from './webdriver.mjs'

alone('WebKit keeps one session for two windows, follows the stream, beats by a worker, and signs out in both', async () => {
  // Two windows, as one of two tabs would be hidden.
  const open = await startWebDriver(process.env.WEBKIT_DRIVER, { HOME: temporaryHome() })
  const user = await newUser()
  const isActive = (page) =>
    page.waitFor(
      `${user.name} is active`,
      (id) => document.querySelector(`tr[data-user="${id}"] .word`)?.textContent === 'Active',
      user.id,
    )
  const isSignedOut = (page) => page.waitFor('signed out', () => location.pathname === '/login')

  const first = await open(`${PAGE}/login`)
  const button = `button[data-user="${user.id}"]`
  await first.waitFor('the users', (button) => document.querySelector(button) !== null, button)
  await first.click(button)
  await isActive(first)
  const second = await open(`${PAGE}/`)
  await isActive(second)
  assert.equal(await second.evaluate(() => document.querySelector('#stream-word').textContent), 'Live')
  assert.equal((await sessionsOf(user)).length, 1)
  const another = await second.evaluate(async () => {
    // The package warns where there is no worker.
    const warnings = []
    console.warn = (...words) => warnings.push(words.join(' '))
    const { keepSession } = await import('/pg-presence/index.js')
    let beats = 0
    let session
    await new Promise((resolve) => {
      session = keepSession({
        mode: 'connection',
        name: 'another',
        fetch: (url, init) => ((beats += url.endsWith('/heartbeat')) === 2 && resolve(), fetch(url, init)),
      })
    })
    await session.end()
    return { status: session.status, warnings }
  })
  assert.deepEqual(another, { status: 'ended', warnings: [] })
  // Nobody moves a mouse, and on a slow machine all this takes as long as the timeout.
  await use(first, user)
  await second.goto(`${PAGE}/login`)
  await second.goBack()
  await isActive(second)
  await first.click('#logout')
  await isSignedOut(first)
  await isSignedOut(second)
  await expectChanges(user, ['active started', 'inactive ended'])
})
