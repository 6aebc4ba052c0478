// How clients/js asks: tokens that expire, servers that are busy, streams that break. Where no browser is needed, in Node.

import assert from 'node:assert/strict'
import { hide, newUser, PACKAGE, PAGE, Person, untilBeatAfter, untilSilentFor, visit, withoutSession } from './fixtures.mjs'
import { currentTest, test, until } from './framework.mjs'

const { watchPresence } = await import(`${PACKAGE}/src/index.js`)
const { backOff, requester, retryAfter } = await import(`${PACKAGE}/src/request.js`)
const { eventParser } = await import(`${PACKAGE}/src/event-stream.js`)

// --- Failures ---------------------------------------------------------------------------------

test('waits grow, differ from browser to browser, and are never shorter than the server wants', () => {
  const waits = (error) => {
    const retry = backOff()
    return Array.from({ length: 8 }, () => retry.next(error))
  }
  const [first, second] = [waits(new Error()), waits(new Error())]
  first.forEach((ms, index) => {
    const longest = Math.min(1000 * 2 ** index, 30_000)
    assert.ok(ms >= longest / 2 && ms <= longest, `${ms} of ${longest}`)
  })
  assert.notDeepEqual(first, second)
  assert.ok(waits({ status: 403 }).every((ms) => ms >= 15_000))
  assert.ok(waits({ status: 503, retryAfter: 60_000 }).every((ms) => ms > 60_000))
  const retry = backOff()
  assert.equal(retry.isFailing, false)
  retry.next()
  assert.equal(retry.isFailing, true)
  retry.reset()
  assert.equal(retry.isFailing, false)
})

test('Retry-After has seconds or a date', () => {
  assert.equal(retryAfter('120'), 120_000)
  assert.ok(Math.abs(retryAfter(new Date(Date.now() + 90_000).toUTCString()) - 90_000) < 5000)
  for (const nothing of [null, undefined, '', '0', '-1', 'soon', new Date(0).toUTCString()]) assert.equal(retryAfter(nothing), 0)
  assert.equal(retryAfter('999999999'), 3_600_000)
})

test('a failed request has the message, the status and the wait of the response', async () => {
  const requests = requester({
    fetch: async () => new Response('{"message": "Too many sessions"}', { status: 429, headers: { 'Retry-After': '7' } }),
  })
  await assert.rejects(requests.json('/rpc/start_session', {}), { message: 'Too many sessions', status: 429, retryAfter: 7000 })
})

test('a request is within its time limit, also one whose headers or whose fetch ignores it', async () => {
  const never = new Promise(() => {})
  for (const options of [{ fetch: () => never }, { headers: () => never }]) {
    await assert.rejects(requester(options).request('/', { timeLimit: 20 }), { message: 'The server has not answered.' })
  }
  const controller = new AbortController()
  const refused = assert.rejects(requester({ fetch: () => never }).request('/', { signal: controller.signal }), /aborted/)
  controller.abort()
  await refused
})

test('after a 401 the headers are asked for again, once', async () => {
  const tokens = ['expired', 'fresh', 'expired', 'expired', 'fresh']
  const sent = []
  const requests = requester({
    headers: () => ({ Authorization: tokens.shift() }),
    fetch: async (url, { headers }) => {
      sent.push(headers.Authorization)
      return headers.Authorization === 'fresh' ? Response.json('ok') : new Response('{}', { status: 401 })
    },
  })
  assert.equal(await requests.json('/rpc/heartbeat', {}), 'ok')
  await assert.rejects(requests.json('/rpc/heartbeat', {}), { status: 401 })
  assert.deepEqual(sent, ['expired', 'fresh', 'expired', 'expired'])
})

test('an expired token ends no session while there is a fresh one, and never that of another tab', async () => {
  const ana = await Person.create()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  const second = await ana.open('/login')
  // Stands for a server that wants a token besides the cookie.
  await second.route('**/rpc/heartbeat', (route) =>
    route.request().headers().authorization === 'fresh' ? route.continue() : route.fulfill({ status: 401, json: {} }),
  )
  await second.evaluate(async () => {
    const { keepSession } = await import('/pg-presence/index.js')
    window.tokens = ['at the start', 'expired', 'fresh']
    window.session = keepSession({
      headers: () => ({ Authorization: window.tokens.length > 1 ? window.tokens.shift() : window.tokens[0] }),
      onEnded: (reason) => (window.reason = reason),
    })
  })
  await until('live', () => second.evaluate(() => window.session.status === 'live'))
  await second.evaluate(() => window.session.heartbeat())
  assert.deepEqual(await second.evaluate(() => [window.session.status, window.tokens]), ['live', ['fresh']])
  await second.evaluate(() => ((window.tokens = ['expired']), window.session.heartbeat()))
  await until('ended', () => second.evaluate(() => window.reason === 'unauthorized'))
  await untilBeatAfter(ana.user, 2)
  assert.equal(page.url(), `${PAGE}/`)
})

test('of eight tabs one closes, and one of the others undoes that', async () => {
  const ana = await Person.create()
  const first = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await ana.stopMoving()
  // Without locks in between, as the dashboard's page has them: hidden, so that each tab has no stream.
  const pages = [first]
  await hide(first)
  while (pages.length < 8) {
    const page = await ana.open()
    pages.push(page)
    await ana.sees(ana.user, 'Active', page)
    await hide(page)
  }
  await untilSilentFor(ana.user, 8)
  const beats = []
  ana.context.on('request', (request) => request.url().endsWith('/rpc/heartbeat') && beats.push(request))
  await Promise.all([untilBeatAfter(ana.user, 4), pages.pop().close({ runBeforeUnload: true })])
  // The beat that is later than any release is late by up to seven seconds; after that there is none.
  await untilSilentFor(ana.user, 8)
  assert.ok(beats.length <= 4, `${beats.length} beats`)
})

test('a tab that hears late of another one that has closed leaves alone what has been undone already', async () => {
  const ana = await withoutSession()
  const [late, closed] = [await ana.open('/login'), await ana.open('/login')]
  await late.evaluate(() => {
    const { set } = Object.getOwnPropertyDescriptor(BroadcastChannel.prototype, 'onmessage')
    window.heldBack = null // what the tab has not heard of yet
    Object.defineProperty(BroadcastChannel.prototype, 'onmessage', {
      set(listener) {
        set.call(this, (event) => (window.heldBack ? window.heldBack.push(() => listener(event)) : listener(event)))
      },
    })
  })
  const pages = [ana.page, late, closed]
  for (const page of pages) {
    await page.evaluate(async () => {
      const { keepSession } = await import('/pg-presence/index.js')
      window.session = keepSession()
    })
    await until('live', () => page.evaluate(() => window.session.status === 'live'))
  }
  // Those that have found the session send one more beat, by a timer of up to seven seconds; one that is set now ends later.
  await Promise.all(pages.map((page) => page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 7000)))))
  const beats = []
  ana.context.on('request', (request) => request.url().endsWith('/rpc/heartbeat') && beats.push(request.frame().page()))
  await late.evaluate(() => (window.heldBack = []))
  await ana.leave(closed)
  await until('two beats are told', () => late.evaluate(() => window.heldBack.length >= 3))
  await late.evaluate(() => {
    const listeners = window.heldBack.splice(0)
    window.heldBack = null
    for (const listen of listeners) listen()
  })
  await until('the last beat', () => beats.length >= 3)
  assert.ok(beats.every((page) => page === ana.page), 'the late tab has beaten, too')
})

// --- Streams ------------------------------------------------------------------------------------

test('events are parsed however they are cut', () => {
  const text = 'event: users\r\ndata: {"a":\r\ndata: 1}\r\n\r\n: comment\n\nid: 7\nevent:ping\ndata:{}\n\ndata: x\r\rdata'
  const whole = [['users', '{"a":\n1}'], ['ping', '{}'], ['message', 'x']]
  for (let size = 1; size <= text.length; size++) {
    const events = []
    const parse = eventParser((name, data) => events.push([name, data]))
    for (let at = 0; at < text.length; at += size) parse(text.slice(at, at + size))
    assert.deepEqual(events, whole, `pieces of ${size}`)
  }
})

// A server of streams in this process. `send` sends events on the latest stream.
function streams() {
  const server = {
    opened: 0,
    polled: 0,
    users: [],
    isBuffered: false,
    async fetch(url, { headers, signal }) {
      if (headers.Accept === 'application/json') {
        server.polled++
        return Response.json({ users: server.users })
      }
      server.opened++
      const body = new ReadableStream({
        start(controller) {
          signal.addEventListener('abort', () => controller.error(signal.reason))
          server.send = (...events) => {
            for (const [name, data] of events) {
              controller.enqueue(new TextEncoder().encode(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`))
            }
          }
          server.cut = () => controller.error(new Error('cut'))
          if (!server.isBuffered) server.send(['users', { users: server.users }])
        },
      })
      return new Response(body, { headers: { 'Content-Type': 'text/event-stream' } })
    },
  }
  return server
}

function startWatch(server, options = {}) {
  const heard = []
  const watch = watchPresence({
    url: '/events',
    fetch: server.fetch,
    onChange: (changes) => heard.push(...changes.map(({ id, user }) => `${id} ${user && user.status}`)),
    onSync: (users) => heard.push(`sync ${users.size}`),
    onStatus: (status) => heard.push(status),
    onEvent: (name, data) => heard.push(`${name} ${JSON.stringify(data)}`),
    ...options,
  })
  currentTest().cleanups.push(watch.stop)
  return { watch, heard, hears: (what) => until(what, () => heard.includes(what)) }
}

test('what is different is told, also after a gap, and events it does not know are passed on', async () => {
  const server = streams()
  server.users = [{ id: '1', status: 'active' }, { id: '2', status: 'inactive' }]
  const { watch, heard, hears } = startWatch(server)
  await hears('sync 2')
  server.send(['user', { id: '2', status: 'active' }], ['user', { id: '2', status: 'active' }], ['room', { name: 'tea' }], ['ping', {}])
  await hears('room {"name":"tea"}')
  assert.deepEqual(heard.splice(0), ['1 active', '2 inactive', 'live', 'sync 2', '2 active', 'room {"name":"tea"}'])
  server.users = [{ id: '2', status: 'active' }, { id: '3', status: 'active' }]
  server.cut()
  await hears('sync 2')
  assert.deepEqual(heard, ['stale', '3 active', '1 null', 'live', 'sync 2'])
  assert.deepEqual([...watch.users.keys()], ['2', '3'])
})

test('while the server has no database, what is known is stale, and since when', async () => {
  const server = streams()
  server.users = [{ id: '1', status: 'active' }]
  const { watch, hears } = startWatch(server)
  await hears('live')
  server.send(['disconnected', { since: Date.now() - 60_000 }])
  await hears('stale')
  assert.ok(Date.now() - watch.updatedAt >= 60_000)
  assert.equal(watch.error.message, 'The database cannot be reached.')
})

test('only the users that are asked for are told of', async () => {
  const server = streams()
  server.users = [{ id: '1', status: 'active' }, { id: '2', status: 'active' }]
  const { heard, hears } = startWatch(server, { users: ['2'] })
  await hears('sync 1')
  server.send(['user', { id: '1', status: 'inactive' }], ['user', { id: '2', status: 'inactive' }])
  await hears('2 inactive')
  assert.deepEqual(heard, ['2 active', 'live', 'sync 1', '2 inactive'])
})

test('without a stream the database is asked', async () => {
  const asked = []
  const rows = { presence_of: [{ user_id: '1', status: 'active' }], online_users: [{ user_id: '3', status: 'active' }] }
  const fetch = async (url, { body }) => {
    asked.push([url, body])
    return Response.json(rows[url.split('/').at(-1)])
  }
  const some = startWatch({ fetch }, { url: undefined, users: () => ['1', '2'], interval: 20 })
  await some.hears('sync 1')
  const all = startWatch({ fetch }, { url: undefined, rpc: '/api/rpc', interval: 20 })
  await all.hears('3 active')
  rows.online_users = []
  await all.hears('3 null')
  assert.deepEqual(asked[0], ['/rpc/presence_of', '{"user_ids":["1","2"]}'])
  assert.deepEqual(asked.find(([url]) => url.startsWith('/api')), ['/api/rpc/online_users', '{}'])
})

test('a stream that is held back is replaced by asking, and followed by changes', async () => {
  const server = streams()
  server.isBuffered = true
  server.users = [{ id: '1', status: 'active' }]
  const { hears, heard } = startWatch(server, { interval: 50 })
  await hears('sync 1')
  server.users = [{ id: '1', status: 'inactive' }]
  await hears('1 inactive')
  assert.equal(server.opened, 1)
  assert.ok(!heard.includes('stale'))
})

test('behind a proxy that holds streams back, the page shows the users and follows changes', async () => {
  const ana = await Person.create()
  const ben = await newUser()
  await ana.context.route('**/api/events', (route) =>
    route.request().headers().accept === 'application/json' ? route.continue() : new Promise(() => {}),
  )
  const page = await ana.signIn(await newUser())
  await ana.sees(ben, 'Inactive')
  await visit(ben)
  await ana.sees(ben, 'Active')
  assert.equal(await page.locator('#stream-word').textContent(), 'Live')
})
