// Keeps the session of the signed-in user, one for all tabs of a browser. Has no dependencies; the types are in
// presence.d.ts.
//
//   const presence = startPresence({ onEnded: () => location.assign('/login') })
//   …
//   await presence.logout()
//
// It calls four functions of pg_presence as PostgREST serves them: start_session, heartbeat, end_session_by_token and
// release_session_by_token. They are in the schema `schema`, which PostgREST has to expose.

const ACTIVITY_EVENTS = ['mousemove', 'mousedown', 'keydown', 'click', 'scroll', 'wheel', 'touchstart']
const THROTTLE = 1000
const RETRY_DELAY = { min: 1000, max: 30_000 }
const REQUEST_TIMEOUT = 20_000
const LATE_RELEASE = 5000 // how late the release of a closed page may arrive; less than its grace of 10 s

// Call it after a login: the end of an earlier session then no longer counts as the end of this one.
export function afterLogin(name = 'presence') {
  localStorage.removeItem(`${name}:session`)
}

export function startPresence({
  mode = 'activity',
  url = '/rpc',
  schema = 'presence',
  headers = {},
  metadata = null,
  name = 'presence',
  onStatus = () => {},
  onEnded = () => {},
  onError = () => {},
} = {}) {
  const keys = { token: `${name}:token`, session: `${name}:session` } // in localStorage, for other tabs and later pages
  const tabs = new BroadcastChannel(name)
  const listeners = new AbortController()

  let session = null // what start_session returned, and the token
  let token = localStorage.getItem(keys.token)
  // Where several schemas are exposed, PostgREST looks for a function in the first one, unless told another.
  const ownHeaders = { 'Content-Type': 'application/json', ...(schema && { 'Content-Profile': schema }) }
  let lastHeaders = {} // those of the last call
  let status = null
  let isActive = true // whether there was activity since the last beat; opening the page is activity
  let activeAt = Date.now() // when the last activity was
  let nextBeatAt = 0 // when the next beat is due
  let retryDelay = 0 // the delay after the last failure; 0 if the last call succeeded
  let pendingBeat = null // the promise of the beat in progress
  let requests = new AbortController() // aborts the calls in progress
  let hasLeft = false // whether the page is closing, or in the back/forward cache
  let isStopped = false

  function setStatus(next) {
    if (next !== status) onStatus((status = next))
  }

  // --- The database -----------------------------------------------------------------------------

  async function call(fn, args) {
    lastHeaders = typeof headers === 'function' ? await headers() : headers
    const response = await fetch(`${url}/${fn}`, {
      method: 'POST',
      headers: { ...ownHeaders, ...lastHeaders },
      body: JSON.stringify(args),
      signal: AbortSignal.any([AbortSignal.timeout(REQUEST_TIMEOUT), requests.signal]),
    })
    if (response.ok) return response.json()
    const { message } = await response.json().catch(() => ({}))
    throw Object.assign(new Error(message ?? `The server returned status ${response.status}.`), { status: response.status })
  }

  // All tabs use the same token, and so share one session, which a reload resumes. Where locks are available (they
  // require https), the tabs start one after the other, so that only the first one generates a token.
  function start() {
    return navigator.locks ? navigator.locks.request(keys.token, { signal: requests.signal }, startLocked) : startLocked()
  }

  async function startLocked() {
    const stored = localStorage.getItem(keys.token)
    if (!stored) return startWith(newToken())
    try {
      await startWith(stored)
    } catch (error) {
      if (error.status !== 403) throw error
      // Another tab may have replaced the token already.
      if (isTokenReplaced()) return startWith(localStorage.getItem(keys.token))
      // If the session was ended in the meantime, as by signing out everywhere, the presence ends with it.
      const session_id = localStorage.getItem(keys.session)
      if (session_id && (await call('heartbeat', { session_id })) === 'ended') return endInAllTabs()
      // Otherwise the token belongs to the user who was signed in here before.
      await call('end_session_by_token', { session_token: stored }).catch(() => {})
      await startWith(newToken())
    }
    beatAfterRelease()
  }

  async function startWith(next) {
    token = next
    localStorage.setItem(keys.token, token)
    session = { ...(await call('start_session', { session_token: token, metadata })), token }
    localStorage.setItem(keys.session, session.session_id)
  }

  // Whether another tab has signed in since.
  function isTokenReplaced() {
    const stored = localStorage.getItem(keys.token)
    return stored !== null && stored !== token
  }

  function broadcast(message) {
    tabs.postMessage({ ...message, token })
  }

  // --- Heartbeats ---------------------------------------------------------------------------------

  async function beat() {
    // It would undo the release.
    if (isStopped || hasLeft) return
    pendingBeat ??= tryToBeat().finally(() => {
      pendingBeat = null
      schedule()
    })
    return pendingBeat
  }

  async function tryToBeat() {
    // Activity from here on counts for the next beat.
    isActive = false
    const beatAt = Date.now()
    try {
      const answer = session ? await call('heartbeat', { session_id: session.session_id }) : 'unknown'
      if (isStopped || hasLeft) return
      if (answer === 'ended' && !isTokenReplaced()) return endInAllTabs()
      if (answer !== 'ok') await start()
      if (isStopped || hasLeft) return
      retryDelay = 0
      nextBeatAt = beatAt + session.heartbeat_ms
      setStatus('active')
      broadcast({ beatAt, nextBeatAt })
    } catch (error) {
      if (isStopped || hasLeft) return
      if (error.status === 401) return endInAllTabs()
      // The activity has not been reported yet: the next beat does it.
      isActive = true
      const isClientError = error.status >= 400 && error.status < 500
      retryDelay = isClientError ? RETRY_DELAY.max : Math.min(Math.max(retryDelay * 2, RETRY_DELAY.min), RETRY_DELAY.max)
      nextBeatAt = Date.now() + retryDelay
      setStatus('offline')
      onError(error)
    }
  }

  // The release of another page may arrive after our beat: beat once more, to undo it.
  function beatAfterRelease() {
    setTimeout(beat, LATE_RELEASE)
  }

  // Compares times rather than trusting the timer: timers stop in hidden tabs, and while the computer sleeps.
  function tick() {
    if (isStopped || hasLeft || pendingBeat) return
    if (untilNextBeat() > 0) return schedule()
    if (shouldBeat()) beat()
    else setStatus('quiet')
  }

  function untilNextBeat() {
    const ms = nextBeatAt - Date.now()
    // Longer than any interval: the clock was set back.
    return ms > Math.max(session?.heartbeat_ms ?? 0, RETRY_DELAY.max) ? 0 : Math.max(ms, 0)
  }

  // Activity older than the timeout, as from before the computer slept, does not count.
  function shouldBeat() {
    if (mode === 'connection' || !session) return true
    return isActive && Date.now() - activeAt < session.timeout_ms
  }

  function schedule() {
    if (!isStopped) timer.start(untilNextBeat())
  }
  const timer = mode === 'connection' ? workerTimer(tick) : pageTimer(tick)

  // --- Activity on the page -------------------------------------------------------------------------

  function on(target, type, handler, options) {
    target.addEventListener(type, handler, { ...options, signal: listeners.signal })
  }

  function onActivity() {
    const now = Date.now()
    if (Math.abs(now - activeAt) < THROTTLE && isActive) return
    activeAt = now
    isActive = true
    // Beats at once if a beat is overdue, as after a time without activity.
    tick()
  }
  for (const type of ACTIVITY_EVENTS) on(window, type, onActivity, { passive: true, capture: true })

  // The computer woke up, the network is back, or the tab is visible again: do not wait for the retry delay.
  function retryNow() {
    if (retryDelay) nextBeatAt = 0
    tick()
  }
  on(window, 'online', retryNow)
  on(document, 'visibilitychange', () => {
    if (document.visibilityState !== 'visible') return
    onActivity()
    retryNow()
  })

  // The page closes or reloads: unless another beat arrives within the grace, the session becomes inactive. Every tab
  // releases when it closes, and the remaining tabs beat to undo it. The request outlives the page, and needs no JWT.
  function leave() {
    // A later beat would undo the release.
    hasLeft = true
    requests.abort()
    if (!token) return
    fetch(`${url}/release_session_by_token`, {
      method: 'POST',
      keepalive: true,
      headers: { ...ownHeaders, ...lastHeaders },
      body: JSON.stringify({ session_token: token }),
    }).catch(() => {})
    broadcast({ isLeaving: true })
  }
  on(window, 'pagehide', leave)
  on(window, 'pageshow', (event) => {
    if (!event.persisted) return
    // Restored from the back/forward cache, after the release.
    hasLeft = false
    requests = new AbortController()
    activeAt = Date.now()
    beat()
    beatAfterRelease()
  })

  on(tabs, 'message', async ({ data }) => {
    // Messages about another session come from an earlier login, or a later one.
    if (isStopped || hasLeft || data.token !== token) return
    if (data.isEnded) return isTokenReplaced() || endInThisTab()
    if (data.nextBeatAt) {
      nextBeatAt = Math.max(nextBeatAt, data.nextBeatAt)
      retryDelay = 0
      // That beat also covers the activity in this tab.
      if (activeAt <= data.beatAt) isActive = false
      return
    }
    // Another tab leaves, this one stays. The first beat may arrive before the release; the later ones do not.
    await beat()
    await beat()
    beatAfterRelease()
  })

  // --- The end ----------------------------------------------------------------------------------------

  function endInThisTab() {
    if (isStopped) return
    stop()
    setStatus('ended')
    onEnded()
  }

  function endInAllTabs() {
    if (!isTokenReplaced()) for (const key of Object.values(keys)) localStorage.removeItem(key)
    broadcast({ isEnded: true })
    endInThisTab()
  }

  function stop() {
    isStopped = true
    requests.abort()
    listeners.abort()
    timer.stop()
    // Lets messages that were just posted go out first.
    setTimeout(() => tabs.close())
  }

  setStatus('starting')
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
      await pendingBeat
      try {
        if (token && !isStopped) await call('end_session_by_token', { session_token: token })
      } catch (error) {
        // Not an error if another logout() has finished meanwhile, or nobody is signed in any more.
        if (!isStopped && error.status !== 401) throw error
      }
      if (!isStopped) endInAllTabs()
    },
    stop() {
      if (isStopped) return
      leave()
      stop()
    },
  }
}

// Returns 256 random bits in URL-safe base64.
function newToken() {
  const bytes = crypto.getRandomValues(new Uint8Array(32))
  return btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')
}

function pageTimer(tick) {
  let timer
  return {
    start(ms) {
      clearTimeout(timer)
      timer = setTimeout(tick, ms)
    },
    stop: () => clearTimeout(timer),
  }
}

// Browsers throttle the timers of hidden pages, but not those of workers.
function workerTimer(tick) {
  const code = 'let t; onmessage = ({ data }) => { clearTimeout(t); t = setTimeout(() => postMessage(0), data) }'
  const worker = new Worker(URL.createObjectURL(new Blob([code])))
  worker.onmessage = tick
  return {
    start: (ms) => worker.postMessage(ms),
    stop: () => worker.terminate(),
  }
}
