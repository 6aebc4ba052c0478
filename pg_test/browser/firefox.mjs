// The package in Firefox. Playwright wants a Firefox of its own; this is the one of the distribution.

import assert from 'node:assert/strict'
import puppeteer from 'puppeteer-core'
import { expectChanges, newUser, PAGE, sessionsOf, temporaryHome, use } from './fixtures.mjs'
import { alone, currentTest, PATIENCE } from './framework.mjs'

alone('Firefox keeps one session for two tabs, follows the stream, beats by a worker, and signs out in both', async () => {
  const browser = await puppeteer.launch({
    browser: 'firefox',
    executablePath: process.env.FIREFOX,
    timeout: PATIENCE,
    protocolTimeout: PATIENCE,
    env: { ...process.env, HOME: temporaryHome() },
  })
  currentTest().cleanups.unshift(() => browser.close())
  const user = await newUser()
  const errors = []
  const open = async (path) => {
    const page = await browser.newPage()
    page.setDefaultTimeout(PATIENCE)
    page.on('pageerror', (error) => errors.push(error.message))
    page.on('console', (message) => ['warn', 'error'].includes(message.type()) && errors.push(message.text()))
    await page.goto(PAGE + path)
    return page
  }
  const isActive = (page) =>
    page.waitForFunction((id) => document.querySelector(`tr[data-user="${id}"] .word`)?.textContent === 'Active', {}, user.id)

  const first = await open('/login')
  await first.waitForSelector(`button[data-user="${user.id}"]`)
  await first.click(`button[data-user="${user.id}"]`)
  await isActive(first)
  const second = await open('/')
  await isActive(second)
  assert.equal(await second.$eval('#stream-word', ({ textContent }) => textContent), 'Live')
  assert.equal((await sessionsOf(user)).length, 1)
  const status = await second.evaluate(async () => {
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
    return session.status
  })
  assert.equal(status, 'ended')
  // Nobody moves a mouse, and on a slow machine all this takes as long as the timeout.
  await use(first, user)
  await second.goto(`${PAGE}/login`)
  await second.goBack()
  await isActive(second)
  await first.bringToFront()
  await first.click('#logout')
  await first.waitForFunction(() => location.pathname === '/login')
  await second.waitForFunction(() => location.pathname === '/login')
  await expectChanges(user, ['active started', 'inactive ended'])
  assert.deepEqual(errors, [])
})
