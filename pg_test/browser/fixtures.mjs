// The database, and people with browsers.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'
import pg from 'pg'
import { chromium } from 'playwright-core'
import { currentTest, PATIENCE, until } from './framework.mjs'

export const { PAGE, PACKAGE, SHOTS } = process.env
const launchOptions = { executablePath: process.env.CHROMIUM, args: ['--no-sandbox'] }
const exec = promisify(execFile)

const UNANSWERED = 10_000 // how long a page may take for one move of the mouse; less than the timeout

let shared // one browser for all tests, with a profile for each person

// --- The database -----------------------------------------------------------------------

// Runs SQL as superuser, on a connection of its own, as some tests restart the server.
export async function sql(text, values = []) {
  const client = new pg.Client()
  client.on('error', () => {})
  await client.connect()
  try {
    return (await client.query(text, values)).rows
  } finally {
    await client.end()
  }
}

export async function pgCtl(...args) {
  const command = [...process.env.PG_CTL.split(' '), ...args]
  const asServer = process.getuid() === 0 ? ['runuser', '-u', 'postgres', '--'] : []
  const [program, ...rest] = [...asServer, ...command]
  await exec(program, rest, { cwd: '/' })
}

// Creates a user, so that no test depends on another.
let number = 0
export async function newUser(name = `Person ${++number}`) {
  const [{ id }] = await sql("INSERT INTO app.users (name, title) VALUES ($1, 'Tester') RETURNING id", [name])
  return { id, name }
}

// Returns the changes of one user, oldest first, as `status reason`.
export async function changesOf(user) {
  const rows = await sql(
    "SELECT status || ' ' || reason AS change FROM presence.presence_changes WHERE user_id = $1 ORDER BY seq",
    [user.id],
  )
  return rows.map(({ change }) => change)
}

export async function lastSeen(user) {
  return (await sql('SELECT presence.last_seen($1) AS at', [user.id]))[0].at
}

export async function sessionsOf(user) {
  return sql('SELECT id FROM presence.user_sessions WHERE user_id = $1', [user.id])
}

// Waits until a user has this many changes, and asserts that they are these.
export async function expectChanges(user, expected) {
  await until(`${user.name}: ${expected}`, async () => (await changesOf(user)).length >= expected.length)
  assert.deepEqual(await changesOf(user), expected)
}

// Keeps a user online without a browser, until the returned function is called.
export async function visit(user) {
  const [{ id }] = await sql('SELECT session_id AS id FROM presence.start_session(user_id => $1)', [user.id])
  let isThere = true
  const leave = () => {
    isThere = false
  }
  const beat = async () => {
    // One beat after the other: a server that is late is not asked on ever more connections.
    while (isThere) {
      await sql('SELECT presence.heartbeat($1)', [id]).catch(() => {})
      await setTimeout(1000)
    }
  }
  beat()
  currentTest().cleanups.push(leave)
  return leave
}

// Waits for a beat of a user that is this many seconds from now or later.
export async function untilBeatAfter(user, seconds) {
  const [{ at }] = await sql("SELECT clock_timestamp() + $1 * interval '1 s' AS at", [seconds])
  await until(`${user.name} beats`, async () => {
    return (await lastSeen(user)) > at
  })
}

// Waits until a user has not beaten for this many seconds.
export async function untilSilentFor(user, seconds) {
  await until(`${user.name} is silent`, async () => {
    const silent = "SELECT presence.last_seen($1) < clock_timestamp() - $2 * interval '1 s' AS silent"
    return (await sql(silent, [user.id, seconds]))[0].silent
  })
}

// --- People -------------------------------------------------------------------------------

// A person's browser: a profile with pages.
export class Person {
  static async create(options = {}, browser = undefined) {
    shared ??= chromium.launch(launchOptions)
    const context = await (browser ?? (await shared)).newContext({ viewport: { width: 1100, height: 800 }, ...options })
    context.setDefaultTimeout(PATIENCE)
    const person = new Person()
    person.context = context
    currentTest().people.push(person)
    return person
  }

  // Signs in as a person does, and returns the page with the users. Moves the mouse until `stopMoving` is called.
  async signIn(user) {
    this.user = user
    const page = await this.context.newPage()
    await page.goto(`${PAGE}/login`)
    await page.locator(`button[data-user="${user.id}"]`).click()
    await page.waitForURL(`${PAGE}/`)
    this.moveMouse(page)
    return (this.page = page)
  }

  async open(path = '/') {
    const page = await this.context.newPage()
    await page.goto(PAGE + path)
    return page
  }

  // Closes a page as a person does.
  async leave(page = this.page) {
    await page.close({ runBeforeUnload: true })
  }

  // One move after the other: a page that is late is not moved over by a queue of them. `stopMoving` waits for the last.
  moveMouse(page) {
    let isMoving = true
    const stop = () => {
      isMoving = false
    }
    const move = async () => {
      for (let x = 0; isMoving; x = (x + 17) % 200) {
        // A page that is being left refuses a move, or never answers it; the next page does.
        const moved = page.mouse.move(100 + x, 200).catch(() => page.isClosed() && stop())
        await Promise.race([moved, setTimeout(UNANSWERED)])
        await setTimeout(200)
      }
    }
    const moves = move()
    this.stopMoving = () => {
      stop()
      return moves
    }
    currentTest().cleanups.push(stop)
  }

  async sees(user, word, page = this.page) {
    const row = page.locator(`tr[data-user="${user.id}"]`)
    const look = (row) => [row.querySelector('.word').textContent, row.querySelector('.status .dot').className]
    const shown = await until(`${user.name} is ${word}`, async () => {
      const shown = (await row.count()) && (await row.evaluate(look).catch(() => null))
      return shown && shown[0] === word && shown
    })
    const dot = { Active: 'dot on', Idle: 'dot idle', Busy: 'dot busy', Inactive: 'dot' }[word]
    if (shown[1] !== dot) throw new Error(`${user.name} is ${word}, but the dot is "${shown[1]}"`)
  }

  // Returns a function for the statuses of one user in the event stream from now on: whether they are online, each time that
  // changes. The stream sends a user alone, or all users if one was added.
  async watchStatus(user) {
    await this.page.evaluate(
      (id) =>
        new Promise((resolve) => {
          const seen = (window.seen = []) // also if another user was watched before
          let before
          const receive = (user) => {
            if (user?.id !== id) return
            if (before !== undefined && user.is_online !== before) seen.push(user.is_online)
            before = user.is_online
            resolve()
          }
          const stream = new EventSource('/api/events')
          stream.addEventListener('user', ({ data }) => receive(JSON.parse(data)))
          stream.addEventListener('users', ({ data }) => receive(JSON.parse(data).users.find((user) => user.id === id)))
        }),
      user.id,
    )
    return () => this.page.evaluate(() => window.seen)
  }
}

// Hides a page behind another tab, or shows it again. In a headless browser every page is visible.
export const hide = (page) => setHidden(page, true)
export const show = (page) => setHidden(page, false)
const setHidden = (page, isHidden) =>
  page.evaluate((isHidden) => {
    Object.defineProperty(document, 'hidden', { value: isHidden, configurable: true })
    Object.defineProperty(document, 'visibilityState', { value: isHidden ? 'hidden' : 'visible', configurable: true })
    document.dispatchEvent(new Event('visibilitychange'))
  }, isHidden)

// Sets the clock of a page this many milliseconds ahead.
export async function advanceClock(page, ahead) {
  await page.evaluate((ahead) => {
    const now = Date.now
    Date.now = () => now() + ahead
  }, ahead)
}

// Returns a function for all that a page announces to screen readers from now on; each text is replaced by the next one.
export async function announcementsOf(page) {
  await page.evaluate(() => {
    window.announced = []
    const region = document.querySelector('[aria-live=polite]')
    new MutationObserver(() => window.announced.push(region.textContent)).observe(region, { childList: true })
  })
  return () => page.evaluate(() => window.announced)
}

// Has somebody use a page, in whatever browser, and waits for the beat that tells it.
export async function use(page, user) {
  const before = await lastSeen(user)
  await page.evaluate(() => document.dispatchEvent(new Event('mousemove')))
  await until(`a beat of ${user.name}`, async () => (await lastSeen(user)) > before)
}

// Returns a home directory of a browser, which lasts as long as the test.
export function temporaryHome() {
  const home = mkdtempSync('/tmp/pgp.browser-')
  currentTest().cleanups.push(() => rmSync(home, { recursive: true, force: true, maxRetries: 10 }))
  return home
}

// Launches a browser that can be killed.
export async function launchBrowser() {
  const server = await chromium.launchServer(launchOptions)
  const browser = await chromium.connect(server.wsEndpoint())
  currentTest().cleanups.push(() => server.kill())
  return { browser, kill: () => server.process().kill('SIGKILL') }
}

// Returns a function that waits for the beat which the page at a path sends some seconds after its start: a beat in progress
// when the page is closed may arrive after the release.
export function beatOf(page, path) {
  let count = 0
  page.on('response', (answer) => {
    count += answer.url().endsWith('/rpc/heartbeat') && answer.request().headers().referer === PAGE + path
  })
  return () => until(`a beat of ${path}`, () => count)
}

// --- Cleaning up ---------------------------------------------------------------------------

export async function takeScreenshots(name) {
  let count = 0
  for (const page of currentTest().people.flatMap(({ context }) => context.pages())) {
    const path = `${SHOTS}/${name.replaceAll(' ', '_')}-${++count}.png`
    await page.screenshot({ path, timeout: 5000 }).then(
      () => console.log(`        see ${path}`),
      () => {},
    )
  }
}

// Signs a new user in on a page that keeps no session: the first one is that of the test, without the release of an earlier
// page, which a slow machine may delay past its grace.
export async function withoutSession() {
  const person = await Person.create()
  person.user = await newUser()
  person.page = await person.open('/login')
  const answer = await person.context.request.post(`${PAGE}/api/login`, { data: { user_id: person.user.id } })
  assert.ok(answer.ok(), await answer.text())
  return person
}

// Signs a new user in, who then does nothing.
export async function signedIn() {
  const person = await Person.create()
  await person.signIn(await newUser())
  await person.sees(person.user, 'Active')
  await person.stopMoving()
  return person
}

// What a browser does not answer in time keeps no other test waiting.
const CLOSING = 30_000
const closed = (closable) => Promise.race([closable.close().catch(() => {}), setTimeout(CLOSING)])

export async function cleanUp() {
  for (const cleanup of currentTest().cleanups.splice(0)) await cleanup()
  for (const { context } of currentTest().people.splice(0)) {
    // What a handler still asks for fails with the context; a rejection that nobody handles would end the run.
    for (const routed of [context, ...context.pages()]) await routed.unrouteAll({ behavior: 'ignoreErrors' }).catch(() => {})
    await closed(context)
  }
}

// Closes the browser that tests share; the next test starts another one.
export async function close() {
  const browser = await shared
  shared = undefined
  if (browser) await closed(browser)
}
