// Keeps the session of the signed-in user, one for all tabs of a browser.

import { inOneTab, inTurn, listeners, newToken, openChannel, openStorage, pageTimer, workerTimer } from './browser.js'
import { watchComputer } from './idle.js'
import { backOff, requester } from './request.js'

const ACTIVITY_EVENTS = ['mousemove', 'mousedown', 'keydown', 'click', 'scroll', 'wheel', 'touchstart']
const THROTTLE = 1000
const FALLBACK = 1000 // how long to leave a beat to another tab
const LATE_RELEASE = 5000 // how late the release of a closed page may arrive; less than its grace of 10 s

export function keepSession(options = {}) {
  const { mode = 'activity', idleAfter = 60_000 } = options
  const { url = '/rpc', identity = null, metadata = null, name = 'pg_presence' } = options
  const { on, emit } = listeners(options, ['status', 'ended', 'error'])
  const stored = openStorage(name, options.storage) // { token, session_id, identity }, for other tabs and later pages
  const tabs = openChannel(name, receive)
  const requests = requester(options)
  const retry = backOff()
  const handlers = new AbortController()

  let session = null // what start_session returned, and the token
  let token = stored.read()?.token ?? null
  let status = null
  let hasStarted = false
  let isActive = true // whether there was activity since the last beat; opening the page is activity
  let activeAt = Date.now() // when the last activity was; in mode idle, in any tab
  let isComputerInUse = null // what Idle Detection says, if it may
  let isVouched = false // whether the application has said that somebody is there, and no beat has told it yet
  let toldActiveAt = 0 // of which activity the other tabs know
  let untilToldAgain = null // the timer that tells them of the activity since
  let hasSaidIdle = false // whether the last beat, in any tab, said that nobody is there
  let beatAt = 0 // when the last beat was sent that succeeded, in any tab
  let wait = { until: 0, ms: 0 } // before the next beat
  let pendingBeat = null // the promise of the beat in progress
  let calls = new AbortController() // aborts the calls in progress
  let undoneFor = 0 // when the tab left whose release was undone last, by any tab
  let hasLeft = false // whether the page is closing, or in the back/forward cache
  let isStopped = false
  let isOver = false // whether the session has ended, so that end() has nothing to do

  function setStatus(next) {
    if (next !== status) emit('status', (status = next))
  }

  // --- The database -----------------------------------------------------------------------------

  const call = (fn, args) => requests.json(`${url}/${fn}`, args, { signal: calls.signal })

  // All tabs use the same token, and so share one session, which a reload resumes. They start one after the other, so that
  // only the first one generates a token.
  const start = () => inTurn(`${name}:start`, calls.signal, startInTurn)

  async function startInTurn() {
    const known = stored.read()
    const isFirst = !hasStarted
    if (!known) return startWith(newToken())
    if (identity !== null && (known.identity ?? identity) !== identity) {
      // Of two logins the later one counts: this one if the page has just been opened, else the one stored meanwhile.
      if (!isFirst) return endInThisTab('replaced')
      await startWith(newToken())
      return call('end_session_by_token', { session_token: known.token }).catch(() => {})
    }
    try {
      await startWith(known.token)
    } catch (error) {
      if (error.status !== 403) throw error
      // Without locks, another tab may have replaced the token already.
      if (isTokenReplaced()) return startWith(stored.read().token)
      // If the session was ended in the meantime, as by signing out everywhere, so is this.
      const { session_id } = known
      if (session_id && (await call('heartbeat', { session_id })) === 'ended') return endInAllTabs()
      // Otherwise the token belongs to another user than the one who is calling: to the one who was signed in here before
      // or, if this page has had a session with it, to its own.
      if (identity !== null && !isFirst) return endInThisTab('replaced')
      await call('end_session_by_token', { session_token: known.token }).catch(() => {})
      await startWith(newToken())
    }
    outlastRelease()
  }

  async function startWith(next) {
    const known = stored.read()
    token = next
    stored.write({ ...(known?.token === token && known), token, ...(identity !== null && { identity }) })
    if (!hasStarted) {
      tell({ isNew: true })
      tellActivity()
    }
    hasStarted = true
    session = { ...(await call('start_session', { session_token: token, metadata })), token }
    if (!isTokenReplaced()) stored.write({ ...stored.read(), token, session_id: session.session_id })
  }

  // Whether another tab has signed in since.
  function isTokenReplaced() {
    const known = stored.read()
    return known !== null && known.token !== token
  }

  // --- Heartbeats ---------------------------------------------------------------------------------

  const isAway = () => isStopped || hasLeft // a beat would undo the release

  async function heartbeat() {
    if (isAway()) return
    pendingBeat ??= tryToBeat().finally(() => {
      pendingBeat = null
      schedule()
    })
    return pendingBeat
  }

  async function tryToBeat() {
    // Activity from here on counts for the next beat.
    isActive = false
    const sentAt = Date.now()
    const isIdle = !isAttended()
    const wasVouched = isVouched
    isVouched = false
    try {
      const beat = isIdle ? 'heartbeat_idle' : 'heartbeat'
      const answer = session ? await call(beat, { session_id: session.session_id }) : 'unknown'
      if (isAway()) return
      if (answer === 'ended' && !isTokenReplaced()) return endInAllTabs()
      if (answer !== 'ok') await start()
      if (isAway()) return
      retry.reset()
      // Another tab's may have been sent later, and answered before.
      if (sentAt >= beatAt || isFuture(beatAt)) hasSaidIdle = isIdle && answer === 'ok'
      // Unless the clock was set back meanwhile.
      beatAt = Math.min(sentAt, Date.now())
      // A little early: the rest of the interval is what tabs, and browsers that started at once, are spread over.
      waitFor(0.9 * session.heartbeat_ms - (Date.now() - beatAt))
      setStatus('live')
      tell({ beatAt, nextBeatAt: wait.until, isIdle: hasSaidIdle, undoneFor })
    } catch (error) {
      if (isAway()) return
      if (error.status === 401) {
        leave()
        return endInThisTab('unauthorized')
      }
      // The activity has not been reported yet: the next beat does it.
      isActive = true
      isVouched ||= wasVouched
      waitFor(retry.next(error))
      setStatus('failing')
      emit('error', error)
    }
  }

  function waitFor(ms) {
    wait = { until: Date.now() + ms, ms }
  }

  // Of before the clock was set back.
  const isFuture = (time) => time > Date.now()

  // Whether somebody is there, in this tab or another.
  function isAttended() {
    if (mode !== 'idle') return true
    return isVouched || (isComputerInUse ?? Math.abs(Date.now() - activeAt) < idleAfter)
  }

  // Whether the last beat said that nobody is there, and somebody is: the next one is due.
  const hasReturned = () => mode === 'idle' && hasSaidIdle && !retry.isFailing && isAttended()

  function untilNextBeat() {
    if (hasReturned()) return 0
    const ms = wait.until - Date.now()
    // Longer than it was at first: the clock was set back.
    return ms > wait.ms ? 0 : Math.max(ms, 0)
  }

  function schedule() {
    if (isStopped) return
    const spread = retry.isFailing || !session || hasReturned() ? 0 : Math.random() * 0.1 * session.heartbeat_ms
    timer.start(untilNextBeat() + spread)
  }

  // Compares times rather than trusting the timer: timers stop in hidden tabs, and while the computer sleeps.
  function tick() {
    if (isAway() || pendingBeat) return
    if (untilNextBeat() > 0) return schedule()
    if (shouldBeat()) return beatForAll()
    const untilTimeout = Math.min(beatAt + session.timeout_ms - Date.now(), session.timeout_ms)
    untilTimeout > 0 ? timer.start(untilTimeout) : setStatus('timed_out')
  }

  // The same time has come in every tab; one beat is enough.
  function beatForAll() {
    // Should the other tab fail, or no message of it arrive.
    timer.start(FALLBACK)
    inOneTab(`${name}:beat`, () => untilNextBeat() === 0 && heartbeat())
  }

  // Activity older than the timeout, as from before the computer slept, does not count.
  function shouldBeat() {
    if (mode !== 'activity' || !session) return true
    return isActive && Date.now() - activeAt < session.timeout_ms
  }

  // The release of another page may arrive after our next beat: some beat has to be later than that. Once the session has
  // timed out, as while the computer slept, there is nothing left to outlast.
  function outlastRelease() {
    const lateAt = Date.now() + LATE_RELEASE
    const isDue = () => beatAt < lateAt && Date.now() < lateAt + session?.timeout_ms
    setTimeout(() => isDue() && heartbeat(), LATE_RELEASE + Math.random() * 2000)
  }

  const timer = (mode === 'activity' ? pageTimer : workerTimer)(tick)

  // --- The page -------------------------------------------------------------------------------------

  function handle(target, type, handler, eventOptions) {
    target.addEventListener(type, handler, { ...eventOptions, signal: handlers.signal })
  }

  function noteActivity() {
    const now = Date.now()
    if (Math.abs(now - activeAt) < THROTTLE && isActive) return
    activeAt = now
    isActive = true
    tellActivity()
    // Beats at once if a beat is overdue, as after a time without activity.
    tick()
  }

  // Whichever tab sends the next beat has to know. Not each time, but always of the last: a tab that takes an earlier one for
  // the last says that nobody is there too soon, and is corrected by the one in use, and the user flickers.
  function tellActivity() {
    if (mode !== 'idle' || untilToldAgain !== null || activeAt === toldActiveAt) return
    toldActiveAt = activeAt
    tell({ activeAt })
    untilToldAgain = setTimeout(() => {
      untilToldAgain = null
      if (!isStopped) tellActivity()
    }, idleAfter / 4)
  }
  for (const type of ACTIVITY_EVENTS) handle(document, type, noteActivity, { passive: true, capture: true })
  if (mode === 'idle') {
    watchComputer(idleAfter, handlers.signal, (isInUse) => {
      isComputerInUse = isInUse
      tick()
    })
  }

  // The computer woke up, the network is back, or the tab is visible again: do not wait for the retry delay. Hidden tabs
  // leave it to the visible one.
  function retryNow() {
    if (retry.isFailing) waitFor(document.hidden ? Math.random() * 5000 : 0)
    tick()
  }
  handle(window, 'online', retryNow)
  handle(document, 'visibilitychange', () => {
    if (document.hidden) return
    noteActivity()
    retryNow()
  })

  // The page closes or reloads: unless another beat arrives within the grace, the session becomes inactive. Every tab
  // releases when it closes, and one of the remaining tabs beats to undo it. This needs no JWT.
  function leave() {
    hasLeft = true
    calls.abort()
    if (!token) return
    requests.sendLast(`${url}/release_session_by_token`, { session_token: token })
    tell({ isLeaving: true, leftAt: Date.now() })
  }
  handle(window, 'pagehide', leave)
  handle(window, 'pageshow', (event) => {
    if (!event.persisted) return
    // Restored from the back/forward cache, after the release.
    hasLeft = false
    calls = new AbortController()
    activeAt = Date.now()
    tellActivity()
    heartbeat()
    outlastRelease()
  })

  // --- Other tabs -------------------------------------------------------------------------------------

  function tell(message) {
    tabs.post({ ...message, token, identity })
  }

  function receive(data) {
    if (isAway()) return
    if (data.token !== token) {
      // Other messages about another session come from an earlier login.
      if (data.isNew && identity !== null && data.identity !== identity) endInThisTab('replaced')
    } else if (data.isEnded) {
      if (!isTokenReplaced()) endInThisTab('ended')
    } else if (data.activeAt) {
      // Unless it is older than what is known here, and the clock was not set back meanwhile.
      if (data.activeAt > activeAt || isFuture(activeAt)) activeAt = toldActiveAt = data.activeAt
    } else if (data.nextBeatAt) {
      if (data.undoneFor > undoneFor) undoneFor = data.undoneFor
      if (isFuture(beatAt)) beatAt = 0
      if (data.beatAt >= beatAt) hasSaidIdle = Boolean(data.isIdle)
      beatAt = Math.max(beatAt, data.beatAt)
      retry.reset()
      if (session) {
        if (data.nextBeatAt > wait.until) waitFor(Math.min(data.nextBeatAt - Date.now(), session.heartbeat_ms))
        setStatus('live')
      }
      // That beat also covers the activity in this tab.
      if (activeAt <= data.beatAt) isActive = false
      if (!pendingBeat) schedule()
    } else if (data.isLeaving) {
      stay(data.leftAt)
    }
  }

  // Another tab leaves, this one stays. It may hear of that late, when the next one has undone the release already.
  function stay(leftAt) {
    inOneTab(`${name}:stay`, async () => {
      if (undoneFor === leftAt) return
      undoneFor = leftAt
      // The first beat may arrive before the release; the second one hardly does.
      await heartbeat()
      await heartbeat()
      outlastRelease()
    })
  }

  // --- The end ----------------------------------------------------------------------------------------

  function endInThisTab(reason) {
    isOver ||= reason !== 'unauthorized'
    if (isStopped) return
    stop()
    setStatus('ended')
    emit('ended', reason)
  }

  function endInAllTabs() {
    if (isOver) return
    if (!isTokenReplaced()) stored.write(null)
    tell({ isEnded: true })
    endInThisTab('ended')
  }

  function stop() {
    isStopped = true
    calls.abort()
    handlers.abort()
    timer.stop()
    tabs.close()
  }

  setStatus('starting')
  heartbeat()

  return {
    get status() {
      return status
    },
    get session() {
      return session
    },
    on,
    call,
    heartbeat() {
      if (mode === 'idle') {
        activeAt = Date.now()
        isVouched = true
        tellActivity()
      }
      return heartbeat()
    },
    setStatus: ({ status, text, emoji, expiresIn, source }) =>
      call('set_status', {
        status,
        status_text: text,
        emoji,
        expires_in: interval(expiresIn),
        source,
      }),
    clearStatus: (source) => call('clear_status', { source }),
    setInvisible: (invisible, { expiresIn } = {}) => call('set_invisible', { invisible, expires_in: interval(expiresIn) }),
    ownPresence: () => call('own_presence', {}),
    async end() {
      await pendingBeat
      if (!token || isOver) return
      try {
        // The page may be left meanwhile; and it may have been released, or signed out, before.
        await requests.json(`${url}/end_session_by_token`, { session_token: token }, { keepalive: true })
      } catch (error) {
        // Not an error if another end() has finished meanwhile, or nobody is signed in any more.
        if (!isOver && error.status !== 401) throw error
      }
      endInAllTabs()
    },
    release() {
      if (isStopped) return
      leave()
      stop()
    },
  }
}

// Milliseconds, or as PostgreSQL reads it.
function interval(duration) {
  return typeof duration === 'number' ? `${duration} milliseconds` : duration
}
