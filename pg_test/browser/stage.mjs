// The server, and people with browsers in front of it.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import pg from 'pg'
import { chromium } from 'playwright-core'
import { mine, PATIENCE, until } from './test.mjs'

export const { PAGE, WEB, SHOTS } = process.env
const launchOptions = { executablePath: process.env.CHROMIUM, args: ['--no-sandbox'] }
const exec = promisify(execFile)

let shared // one browser for all tests; each person has a profile of their own in it

// --- The database -----------------------------------------------------------------------

// Runs SQL as superuser, in a connection of its own: the server is restarted now and then.
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

// A new user, so that no test sees what another has left.
let number = 0
export async function newUser(name = `Person ${++number}`) {
  const [{ id }] = await sql("INSERT INTO app.users (name, title) VALUES ($1, 'Tester') RETURNING id", [name])
  return { id, name }
}

// The changes of one user, oldest first, as `status reason`.
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

// Waits until there are that many changes of one user, which then have to be these.
export async function changesAre(user, expected) {
  await until(`${user.name}: ${expected}`, async () => (await changesOf(user)).length >= expected.length)
  assert.deepEqual(await changesOf(user), expected)
}

// Somebody is there without a browser, and beats until the function it returns is called.
export async function visit(user) {
  const [{ id }] = await sql('SELECT session_id AS id FROM presence.start_session(user_id => $1)', [user.id])
  const timer = setInterval(() => sql('SELECT presence.heartbeat($1)', [id]).catch(() => {}), 1000)
  const leave = () => clearInterval(timer)
  mine().undo.push(leave)
  return leave
}

// Waits until somebody is heard from later than so many seconds from now.
export async function untilHeardAfter(user, seconds) {
  const [{ at }] = await sql("SELECT clock_timestamp() + $1 * interval '1 s' AS at", [seconds])
  await until(`${user.name} is heard from`, async () => {
    return (await lastSeen(user)) > at
  })
}

// Waits until somebody was not heard from for so many seconds.
export async function untilSilentFor(user, seconds) {
  await until(`${user.name} is silent`, async () => {
    const silent = "SELECT presence.last_seen($1) < clock_timestamp() - $2 * interval '1 s' AS silent"
    return (await sql(silent, [user.id, seconds]))[0].silent
  })
}

// --- People -------------------------------------------------------------------------------

// Somebody's browser: a profile with pages.
export class Person {
  static async sit(options = {}, browser = undefined) {
    shared ??= chromium.launch(launchOptions)
    const context = await (browser ?? (await shared)).newContext({ viewport: { width: 1100, height: 800 }, ...options })
    context.setDefaultTimeout(PATIENCE)
    const person = new Person()
    person.context = context
    mine().people.push(person)
    return person
  }

  // Signs in the way a person does, and returns the page that shows the users. Moves the mouse until `still`.
  async signIn(user) {
    this.user = user
    const page = await this.context.newPage()
    await page.goto(`${PAGE}/login`)
    await page.locator(`button[data-user="${user.id}"]`).click()
    await page.waitForURL(`${PAGE}/`)
    this.stir(page)
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

  stir(page) {
    let x = 0
    const timer = setInterval(() => page.mouse.move(100 + (x = (x + 17) % 200), 200).catch(this.still), 200)
    this.still = () => clearInterval(timer)
    mine().undo.push(this.still)
  }

  async sees(user, word, page = this.page) {
    const row = page.locator(`tr[data-user="${user.id}"]`)
    await until(`${user.name} is ${word}`, async () => (await row.locator('.word').textContent().catch(() => '')) === word)
    const isGreen = await row.locator('.status .dot.on').count()
    if (Boolean(isGreen) !== (word === 'Active')) throw new Error(`${user.name} is ${word}, but the dot is not`)
  }

  // What the stream tells about one user from now on: whether they are online, each time that changes. It may be told
  // alone, or with everybody's where a user was added meanwhile.
  async watch(user) {
    await this.page.evaluate(
      (id) =>
        new Promise((resolve) => {
          window.told = []
          let before
          const hear = (user) => {
            if (user?.id !== id) return
            if (before !== undefined && user.is_online !== before) window.told.push(user.is_online)
            before = user.is_online
            resolve()
          }
          const stream = new EventSource('/api/events')
          stream.addEventListener('user', ({ data }) => hear(JSON.parse(data)))
          stream.addEventListener('users', ({ data }) => hear(JSON.parse(data).users.find((user) => user.id === id)))
        }),
      user.id,
    )
    return () => this.page.evaluate(() => window.told)
  }
}

// Another tab is in front of this one, or none any more. A browser without a screen has all in front.
export const hide = (page) => setHidden(page, true)
export const show = (page) => setHidden(page, false)
const setHidden = (page, isHidden) =>
  page.evaluate((isHidden) => {
    Object.defineProperty(document, 'hidden', { value: isHidden, configurable: true })
    Object.defineProperty(document, 'visibilityState', { value: isHidden ? 'hidden' : 'visible', configurable: true })
    document.dispatchEvent(new Event('visibilitychange'))
  }, isHidden)

// Has the clock of a page run so many milliseconds ahead from now on.
export async function setClock(page, ahead) {
  await page.evaluate((ahead) => {
    const now = Date.now
    Date.now = () => now() + ahead
  }, ahead)
}

// A browser of its own, which may be killed.
export async function ownBrowser() {
  const server = await chromium.launchServer(launchOptions)
  const browser = await chromium.connect(server.wsEndpoint())
  mine().undo.push(() => server.kill())
  return { browser, kill: () => server.process().kill('SIGKILL') }
}

// --- Afterwards ---------------------------------------------------------------------------

export async function keepShots(name) {
  let count = 0
  for (const page of mine().people.flatMap(({ context }) => context.pages())) {
    const path = `${SHOTS}/${name.replaceAll(' ', '_')}-${++count}.png`
    await page.screenshot({ path, timeout: 5000 }).then(
      () => console.log(`        see ${path}`),
      () => {},
    )
  }
}

export async function discard() {
  for (const undo of mine().undo.splice(0)) await undo()
  for (const { context } of mine().people.splice(0)) await context.close().catch(() => {})
}

export async function close() {
  await (await shared)?.close()
}
