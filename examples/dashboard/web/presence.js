// Keeps the session of whoever is signed in, in all tabs of a browser. Needs nothing else; the types are in
// presence.d.ts.
//
//   const presence = startPresence({ onEnded: () => location.assign('/login') })
//   …
//   await presence.logout()
//
// It calls four functions of pg_presence in the form PostgREST gives them: start_session, heartbeat, end_session and
// release_session_by_token.

const ACTIVITY = ['mousemove', 'mousedown', 'keydown', 'click', 'scroll', 'wheel', 'touchstart']
const DEBOUNCE = 1000
const RETRY = { first: 1000, longest: 30_000 }
const TIMEOUT = 20_000

export function startPresence({
  mode = 'activity',
  url = '/rpc',
  headers = {},
  metadata = null,
  name = 'presence',
  onStatus = () => {},
  onEnded = () => {},
  onError = () => {},
} = {}) {
  const key = `${name}:token`
  const tabs = new BroadcastChannel(name)
  const listening = new AbortController()

  let session = null // as start_session answered, and its token
  let status = null
  let isActive = true // whether anything happened since the last beat; who opens a page is there
  let activeAt = 0 // when something last happened
  let nextAt = 0 // when the next beat may be
  let retry = 0 // the pause after a failure; 0 while all is well
  let beating = null // the beat under way
  let underWay = new AbortController() // gives up the calls under way
  let isGone = false // the page is closing, or kept out of sight
  let isOver = false

  function say(next) {
    if (next !== status) onStatus((status = next))
  }

  // --- The database -----------------------------------------------------------------------------

  async function call(fn, args) {
    const response = await fetch(`${url}/${fn}`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...(typeof headers === 'function' ? await headers() : headers) },
      body: JSON.stringify(args),
      signal: AbortSignal.any([AbortSignal.timeout(TIMEOUT), underWay.signal]),
    })
    if (response.ok) return response.json()
    const { message } = await response.json().catch(() => ({}))
    throw Object.assign(new Error(message ?? `The server answers ${response.status}.`), { status: response.status })
  }

  // All tabs bring the same token, and so get the same session; a reload gets it back.
  async function start() {
    const kept = localStorage.getItem(key)
    try {
      await startWith(kept ?? newToken())
    } catch (error) {
      // A token of a session that has ended, or of somebody else, is good for nothing any more.
      if (!kept || error.status !== 403) throw error
      await startWith(newToken())
    }
  }

  async function startWith(token) {
    localStorage.setItem(key, token)
    session = { ...(await call('start_session', { session_token: token, metadata })), token }
  }

  // --- Heartbeats ---------------------------------------------------------------------------------

  function beat() {
    beating ??= tryToBeat().finally(() => {
      beating = null
      schedule()
    })
    return beating
  }

  async function tryToBeat() {
    // What happens from here on is for the next beat.
    isActive = false
    const beatAt = Date.now()
    try {
      const answer = session ? await call('heartbeat', { session_id: session.session_id }) : 'unknown'
      if (isOver) return
      if (answer === 'ended') return end()
      if (answer === 'unknown') await start()
      retry = 0
      nextAt = beatAt + session.heartbeat_ms
      say('active')
      if (!isOver) tabs.postMessage({ nextAt })
    } catch (error) {
      if (isOver) return
      if (error.status === 401) return end()
      // Nothing is lost: what was to be told will be, once somebody listens.
      isActive = true
      const isRefused = error.status >= 400 && error.status < 500
      retry = isRefused ? RETRY.longest : Math.min(Math.max(retry * 2, RETRY.first), RETRY.longest)
      nextAt = Date.now() + retry
      say('offline')
      onError(error)
    }
  }

  // Asks the clock, not how often a timer rang: timers sleep in hidden tabs, and with the machine.
  function tick() {
    if (isOver || isGone || beating) return
    if (Date.now() < nextAt) return schedule()
    if (isActive || retry || mode === 'connection') beat()
    else say('quiet')
  }

  function schedule() {
    if (!isOver) clock.ring(Math.max(nextAt - Date.now(), 0))
  }
  const clock = mode === 'connection' ? workerClock(tick) : pageClock(tick)

  // --- What happens on the page ---------------------------------------------------------------------

  function on(target, type, handler, options) {
    target.addEventListener(type, handler, { ...options, signal: listening.signal })
  }

  function activity() {
    const now = Date.now()
    if (now - activeAt < DEBOUNCE) return
    activeAt = now
    isActive = true
    // After a silence this beats at once; else the next beat is due anyway.
    tick()
  }
  for (const type of ACTIVITY) on(window, type, activity, { passive: true, capture: true })

  // Back from sleep, from no network, from another tab: what waited may go now.
  function hurry() {
    if (retry) nextAt = 0
    tick()
  }
  on(window, 'online', hurry)
  on(document, 'visibilitychange', () => {
    if (document.visibilityState !== 'visible') return
    activity()
    hurry()
  })

  // The page closes, or is reloaded: unless somebody beats within the grace, the session is silent from now on.
  // Any tab says so, and the others contradict. The request outlives the page, and needs no JWT.
  function leave() {
    // A beat that comes after would say the opposite.
    isGone = true
    underWay.abort()
    underWay = new AbortController()
    if (!session) return
    const own = typeof headers === 'function' ? {} : headers
    fetch(`${url}/release_session_by_token`, {
      method: 'POST',
      keepalive: true,
      headers: { ...own, 'Content-Type': 'application/json' },
      body: JSON.stringify({ session_token: session.token }),
    }).catch(() => {})
    tabs.postMessage({ isLeaving: true })
  }
  on(window, 'pagehide', leave)
  on(window, 'pageshow', (event) => {
    if (!event.persisted) return
    // Shown again: we had left.
    isGone = false
    isActive = true
    nextAt = 0
    tick()
  })

  on(tabs, 'message', async ({ data }) => {
    if (isOver || isGone) return
    if (data.isEnded) return finish()
    if (data.nextAt) {
      nextAt = Math.max(nextAt, data.nextAt)
      retry = 0
      return
    }
    // Another tab has left, we have not. The first beat may overtake its request; the others do not.
    await beat()
    await beat()
    setTimeout(() => isOver || isGone || beat(), 2000)
  })

  // --- The end ----------------------------------------------------------------------------------------

  function finish() {
    if (isOver) return
    stop()
    say('ended')
    onEnded()
  }

  // Here, and in all other tabs.
  function end() {
    localStorage.removeItem(key)
    tabs.postMessage({ isEnded: true })
    finish()
  }

  function stop() {
    isOver = true
    listening.abort()
    clock.stop()
    // What was just posted still has to go out.
    setTimeout(() => tabs.close())
  }

  say('starting')
  beat()

  return {
    get status() {
      return status
    },
    get session() {
      return session
    },
    beat,
    async logout() {
      await beating
      if (session && !isOver) await call('end_session', { session_id: session.session_id })
      end()
    },
    stop() {
      if (isOver) return
      leave()
      stop()
    },
  }
}

// 256 random bits, url-safe.
function newToken() {
  const bytes = crypto.getRandomValues(new Uint8Array(32))
  return btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')
}

function pageClock(tick) {
  let timer
  return {
    ring(ms) {
      clearTimeout(timer)
      timer = setTimeout(tick, ms)
    },
    stop: () => clearTimeout(timer),
  }
}

// Browsers slow down the timers of a hidden page, but not those of its workers.
function workerClock(tick) {
  const code = 'let t; onmessage = ({ data }) => { clearTimeout(t); t = setTimeout(() => postMessage(0), data) }'
  const worker = new Worker(URL.createObjectURL(new Blob([code])))
  worker.onmessage = tick
  return {
    ring: (ms) => worker.postMessage(ms),
    stop: () => worker.terminate(),
  }
}
