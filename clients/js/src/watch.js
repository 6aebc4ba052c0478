// Who is there: followed as a stream of server-sent events or, where none gets through, asked for again and again.

import { listeners } from './browser.js'
import { backOff, requester } from './request.js'
import { eventParser } from './event-stream.js'

const FIRST_EVENT = 5000 // how long a stream may take to begin; after that something on the way holds it back
const SILENCE = 15_000 // how long it may be silent after that
const NO_STREAM = 60_000 // how long not to try a stream again that was held back
const FOREVER = 2 ** 31 - 1

export function watchPresence(options = {}) {
  const { url, rpc = url ? null : '/rpc', users: wanted, interval = 10_000 } = options
  const { on, emit } = listeners(options, ['sync', 'change', 'status', 'event', 'error'])
  const requests = requester(options)
  const retry = backOff()
  const users = new Map()

  let status = 'connecting'
  let error = null // why it is stale
  let updatedAt = null // when the users were last known to be right, by this computer's clock
  let clockSkew = 0 // the server's clock minus this computer's
  let noStreamUntil = url ? 0 : Infinity
  let request = new AbortController() // aborts the request in progress
  let wake = () => {} // ends the wait in progress
  let isStopped = false

  function setStatus(next, reason = null) {
    if (next === status && reason?.message === error?.message) return
    status = next
    error = reason
    emit('status', status, error)
  }

  // --- What is known ------------------------------------------------------------------------------

  const wantedIds = () => wanted && [...(typeof wanted === 'function' ? wanted() : wanted)]

  // Takes rows in, all or some, and tells what is different.
  function update(rows, isWhole) {
    const ids = wanted && new Set(wantedIds())
    const gone = new Set(isWhole ? users.keys() : [])
    const changes = []
    for (const user of rows) {
      const id = user.user_id ?? user.id
      if (ids && !ids.has(id)) continue
      gone.delete(id)
      const previous = users.get(id)
      if (previous && isSame(previous, user)) continue
      users.set(id, user)
      changes.push({ id, user, previous })
    }
    for (const id of gone) {
      changes.push({ id, user: null, previous: users.get(id) })
      users.delete(id)
    }
    if (changes.length) emit('change', changes)
  }

  function take({ users: rows, is_live = true, since }) {
    update(rows, true)
    is_live ? setStatus('live') : lose(since)
    emit('sync', users)
  }

  // The server has lost what its stream comes from, and knows since when.
  function lose(since) {
    if (since) updatedAt = since - clockSkew
    setStatus('stale', new Error('The database cannot be reached.'))
  }

  function receive(name, data) {
    if (data.server_time) clockSkew = data.server_time - Date.now()
    if (name === 'users') take(data)
    else if (name === 'user') update([data], false)
    else if (name === 'disconnected') lose(data.since)
    else if (name !== 'ping') emit('event', name, data)
    if (status === 'live') updatedAt = Date.now()
  }

  // --- Asking -------------------------------------------------------------------------------------

  // Follows a stream to its end. Rejects if it breaks; the error is `isSilent` if it has never begun.
  async function follow(signal) {
    let hasBegun = false
    let timer
    const broken = new AbortController()
    const abort = () => broken.abort()
    const expectSoon = (ms) => {
      clearTimeout(timer)
      timer = setTimeout(abort, ms)
    }
    signal.addEventListener('abort', abort)
    expectSoon(FIRST_EVENT)
    const options = { accept: 'text/event-stream', signal: broken.signal, timeLimit: FOREVER }
    try {
      await requests.request(url, options, async (response) => {
        // A server, or what is before it, without streams.
        if (!/event-stream/.test(response.headers.get('Content-Type'))) throw Object.assign(new Error(), { isSilent: true })
        const reader = response.body.getReader()
        const decoder = new TextDecoder()
        const parse = eventParser((name, data) => {
          hasBegun = true
          receive(name, JSON.parse(data))
          retry.reset()
        })
        for (;;) {
          const { value, done } = await reader.read()
          if (done) return
          parse(decoder.decode(value, { stream: true }))
          expectSoon(hasBegun ? SILENCE : FIRST_EVENT)
        }
      })
    } catch (error) {
      if (broken.signal.aborted && !signal.aborted) {
        throw Object.assign(new Error('The server has stopped responding.'), { isSilent: !hasBegun })
      }
      throw error
    } finally {
      clearTimeout(timer)
      signal.removeEventListener('abort', abort)
      broken.abort()
    }
    if (!hasBegun) throw Object.assign(new Error('The stream was empty.'), { isSilent: true })
  }

  async function poll(signal) {
    const options = { signal, timeLimit: SILENCE - FIRST_EVENT }
    const ask = (url, body) => requests.json(url, body, options)
    if (rpc === null) {
      const all = await ask(url)
      receive('hello', all)
      return receive('users', all)
    }
    const ids = wantedIds()
    const rows = ids ? await ask(`${rpc}/presence_of`, { user_ids: ids }) : await ask(`${rpc}/online_users`, {})
    receive('users', { users: rows })
  }

  // One attempt; returns how long to wait before the next one.
  async function attempt() {
    const { signal } = request
    try {
      if (Date.now() >= noStreamUntil) {
        await follow(signal)
        // The server ends a stream now and then.
        return Math.random() * 1000
      }
      await poll(signal)
      retry.reset()
      return interval * (0.9 + Math.random() * 0.2)
    } catch (error) {
      if (signal.aborted) return 0
      if (error.isSilent) {
        noStreamUntil = Date.now() + NO_STREAM
        return 0
      }
      // What is wrong is not only the stream.
      if (url) noStreamUntil = 0
      setStatus('stale', error)
      emit('error', error)
      return retry.next(error)
    }
  }

  // Browsers open at most six connections to a server, over all tabs; a stream holds one, so hidden tabs have none.
  const isHidden = () => typeof document !== 'undefined' && document.hidden

  async function run() {
    while (!isStopped) {
      const ms = isHidden() ? FOREVER : await attempt()
      if (isStopped || (ms === 0 && !isHidden())) continue
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, isHidden() ? FOREVER : ms)
        wake = () => (clearTimeout(timer), resolve())
      })
    }
  }

  // Asks again now.
  function refresh() {
    request.abort()
    request = new AbortController()
    wake()
  }

  const onVisibility = () => {
    retry.reset()
    refresh()
  }
  globalThis.document?.addEventListener('visibilitychange', onVisibility)
  globalThis.addEventListener?.('online', refresh)
  run()

  return {
    users,
    get status() {
      return status
    },
    get error() {
      return error
    },
    get updatedAt() {
      return updatedAt
    },
    now: () => Date.now() + clockSkew,
    on,
    refresh,
    stop() {
      isStopped = true
      globalThis.document?.removeEventListener('visibilitychange', onVisibility)
      globalThis.removeEventListener?.('online', refresh)
      refresh()
    },
  }
}

function isSame(a, b) {
  const keys = Object.keys(b)
  return keys.length === Object.keys(a).length && keys.every((key) => a[key] === b[key])
}
