// Keeps the session of whoever is signed in, in all tabs of a browser. Needs nothing else; the types are in
// presence.d.ts.
//
//   const presence = startPresence({ onEnded: () => location.assign('/login') })
//   …
//   await presence.logout()
//
// It calls four functions of pg_presence in the form PostgREST gives them: start_session, heartbeat,
// end_session_by_token and release_session_by_token.

const ACTIVITY = ['mousemove', 'mousedown', 'keydown', 'click', 'scroll', 'wheel', 'touchstart']
const DEBOUNCE = 1000
const RETRY = { first: 1000, longest: 30_000 }
const TIMEOUT = 20_000
const LATE = 5000 // a goodbye may arrive so much after its page; less than its grace of 10 s

// To be called after a login: that an earlier session has ended is then no reason to ask for another.
export function hasLoggedIn(name = 'presence') {
  localStorage.removeItem(`${name}:session`)
}

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
  const keys = { token: `${name}:token`, session: `${name}:session` } // of what is kept for other tabs and the next page
  const tabs = new BroadcastChannel(name)
  const listening = new AbortController()

  let session = null // as start_session answered, and its token
  let token = localStorage.getItem(keys.token)
  let lastHeaders = {} // as they were sent last
  let status = null
  let isActive = true // whether anything happened since the last beat; who opens a page is there
  let activeAt = Date.now() // when something last happened
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
    lastHeaders = typeof headers === 'function' ? await headers() : headers
    const response = await fetch(`${url}/${fn}`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...lastHeaders },
      body: JSON.stringify(args),
      signal: AbortSignal.any([AbortSignal.timeout(TIMEOUT), underWay.signal]),
    })
    if (response.ok) return response.json()
    const { message } = await response.json().catch(() => ({}))
    throw Object.assign(new Error(message ?? `The server answers ${response.status}.`), { status: response.status })
  }

  // All tabs bring the same token, and so get the same session; a reload gets it back. One tab after the other, where
  // the browser knows how (it must trust the page: https), so that they do not make a token each.
  function start() {
    return navigator.locks ? navigator.locks.request(keys.token, { signal: underWay.signal }, startInTurn) : startInTurn()
  }

  async function startInTurn() {
    const kept = localStorage.getItem(keys.token)
    if (!kept) return startWith(newToken())
    try {
      await startWith(kept)
    } catch (error) {
      if (error.status !== 403) throw error
      // Another tab may have found that out first.
      if (isReplaced()) return startWith(localStorage.getItem(keys.token))
      // Signed out meanwhile, as from everywhere?
      const session_id = localStorage.getItem(keys.session)
      if (session_id && (await call('heartbeat', { session_id })) === 'ended') return end()
      // Else of whoever was signed in here before, and is no longer.
      await call('end_session_by_token', { session_token: kept }).catch(() => {})
      await startWith(newToken())
    }
    insist()
  }

  async function startWith(next) {
    token = next
    localStorage.setItem(keys.token, token)
    session = { ...(await call('start_session', { session_token: token, metadata })), token }
    localStorage.setItem(keys.session, session.session_id)
  }

  // Whether there is a login since ours, in another tab.
  function isReplaced() {
    const kept = localStorage.getItem(keys.token)
    return kept !== null && kept !== token
  }

  function tell(message) {
    tabs.postMessage({ ...message, token })
  }

  // --- Heartbeats ---------------------------------------------------------------------------------

  async function beat() {
    // It would contradict the goodbye.
    if (isOver || isGone) return
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
      if (isOver || isGone) return
      if (answer === 'ended' && !isReplaced()) return end()
      if (answer !== 'ok') await start()
      if (isOver || isGone) return
      retry = 0
      nextAt = beatAt + session.heartbeat_ms
      say('active')
      tell({ beatAt, nextAt })
    } catch (error) {
      if (isOver || isGone) return
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

  // A goodbye that came late would be believed: contradict it once more.
  function insist() {
    setTimeout(beat, LATE)
  }

  // Asks the clock, not how often a timer rang: timers sleep in hidden tabs, and with the machine.
  function tick() {
    if (isOver || isGone || beating) return
    if (wait() > 0) return schedule()
    if (isThere()) beat()
    else say('quiet')
  }

  function wait() {
    const ms = nextAt - Date.now()
    // More than there can be: the clock was set back.
    return ms > Math.max(session?.heartbeat_ms ?? 0, RETRY.longest) ? 0 : Math.max(ms, 0)
  }

  // What happened before a sleep says nothing about now.
  function isThere() {
    if (mode === 'connection' || !session) return true
    return isActive && Date.now() - activeAt < session.timeout_ms
  }

  function schedule() {
    if (!isOver) clock.ring(wait())
  }
  const clock = mode === 'connection' ? workerClock(tick) : pageClock(tick)

  // --- What happens on the page ---------------------------------------------------------------------

  function on(target, type, handler, options) {
    target.addEventListener(type, handler, { ...options, signal: listening.signal })
  }

  function activity() {
    const now = Date.now()
    if (Math.abs(now - activeAt) < DEBOUNCE && isActive) return
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
    if (!token) return
    fetch(`${url}/release_session_by_token`, {
      method: 'POST',
      keepalive: true,
      headers: { 'Content-Type': 'application/json', ...lastHeaders },
      body: JSON.stringify({ session_token: token }),
    }).catch(() => {})
    tell({ isLeaving: true })
  }
  on(window, 'pagehide', leave)
  on(window, 'pageshow', (event) => {
    if (!event.persisted) return
    // Shown again: we had left.
    isGone = false
    underWay = new AbortController()
    activeAt = Date.now()
    beat()
    insist()
  })

  on(tabs, 'message', async ({ data }) => {
    // What is said about another session is of a login before ours, or after.
    if (isOver || isGone || data.token !== token) return
    if (data.isEnded) return isReplaced() || finish()
    if (data.nextAt) {
      nextAt = Math.max(nextAt, data.nextAt)
      retry = 0
      // What happened here is told, too.
      if (activeAt <= data.beatAt) isActive = false
      return
    }
    // Another tab has left, we have not. The first beat may overtake its request; the others do not.
    await beat()
    await beat()
    insist()
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
    if (!isReplaced()) for (const key of Object.values(keys)) localStorage.removeItem(key)
    tell({ isEnded: true })
    finish()
  }

  function stop() {
    isOver = true
    underWay.abort()
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
      try {
        if (token && !isOver) await call('end_session_by_token', { session_token: token })
      } catch (error) {
        // Unless it was asked for twice, or nobody is signed in any more, it has to be tried again.
        if (!isOver && error.status !== 401) throw error
      }
      if (!isOver) end()
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
