// The users page: keeps the session of who is signed in, and shows who is online.

import { keepSession, watchPresence } from './pg-presence/index.js'
import { OwnStatus } from './own-status.js'
import { wordOf } from './status.js'
import { isolated } from './text.js'
import { UserList } from './user-list.js'

const $ = (id) => document.getElementById(id)

// --- The session -------------------------------------------------------------------------------

let isLoggingOut = false

const session = keepSession({
  identity: storedLogin(),
  metadata: { page: 'users', agent: navigator.userAgent.slice(0, 200) },
  onEnded: (reason) => (reason === 'replaced' ? showReplaced() : goToLogin()),
  onError: (error) => error.status && setNotice('presence', error.message),
  onStatus: (status) => status === 'live' && setNotice('presence', ''),
})

// The login page has named this login.
function storedLogin() {
  try {
    return localStorage.getItem('login')
  } catch {
    return null
  }
}

$('logout').addEventListener('click', async () => {
  isLoggingOut = true
  const problem = await logOut()
  isLoggingOut = !problem
  if (problem) return setNotice('logout', `You are still signed in. ${problem}`)
  // Signed out is what counts. If the session cannot be ended, leaving the page releases it.
  await session.end().catch(() => {})
  location.assign('/login')
})

// Returns what keeps the user signed in.
async function logOut() {
  const headers = { 'Content-Type': 'application/json' }
  const response = await fetch('/api/logout', { method: 'POST', headers, body: '{}' }).catch(() => null)
  if (response?.ok) return ''
  const { message } = (await response?.json().catch(() => null)) ?? {}
  return message ?? 'The server cannot be reached.'
}

// Set until the page is left. It may come back as it was, from the browser's cache of pages.
let isLeaving = false
addEventListener('pagehide', () => (isLeaving = false))

// Once, whoever says that the login has ended: another tab, the session and the stream may all do so.
async function goToLogin() {
  // The button does it.
  if (isLoggingOut || isLeaving) return
  isLeaving = true
  while (await logOut()) {
    // The cookie is still valid: whoever opens the page next would be signed in.
    setNotice('logout', 'Signing out has not succeeded yet. Trying again…')
    await new Promise((resolve) => setTimeout(resolve, 2000))
  }
  location.assign('/login')
}

function showReplaced() {
  watch.stop()
  setNotice('replaced', 'Another user has signed in in another tab. This page no longer updates.')
  setStream('Signed out', false)
}
$('reload').addEventListener('click', () => location.reload())

// --- Who is there --------------------------------------------------------------------------------

const watch = watchPresence({
  url: '/api/events',
  onEvent: (name, { you }) => you && list.setOwn(you),
  onChange(changes) {
    list.apply(changes)
    for (const { id, user, previous } of changes) {
      if (id === list.ownId && user) own.show(user)
      if (user && previous && user.status !== previous.status) {
        announce(`${isolated(user.name)} is ${wordOf(user).toLowerCase()}`)
      }
    }
  },
  onStatus(status, error) {
    if (status === 'live') {
      setNotice('stream', '')
      setNotice('logout', '')
    } else if (status === 'stale') {
      setNotice('stream', `${problemOf(error)} ${ageOf(watch.updatedAt)}`)
    }
    setStream({ live: 'Live', stale: 'Offline', connecting: 'Connecting' }[status], status === 'live')
  },
  onError: (error) => error.status === 401 && goToLogin(),
})
const list = new UserList(watch.now)
const own = new OwnStatus(session, announce)

function problemOf(error) {
  if (error.status >= 500) return 'The database cannot be reached.'
  // What fetch() says is for programmers.
  return error instanceof TypeError ? 'The server cannot be reached.' : error.message
}

function ageOf(updatedAt) {
  if (updatedAt === null) return 'This page will show the users as soon as it can.'
  return `What you see is as of ${new Date(updatedAt).toLocaleTimeString()}; it will update automatically.`
}

function setStream(word, isLive) {
  $('stream-word').textContent = word
  $('stream').classList.toggle('on', isLive)
}

// One notice per topic; the first one that has text is shown.
const notices = new Map()
function setNotice(topic, text) {
  notices.set(topic, text)
  const shown = ['replaced', 'logout', 'stream', 'presence'].map((topic) => notices.get(topic)).find(Boolean) ?? ''
  if ($('notice-text').textContent !== shown) $('notice-text').textContent = shown
  $('notice').hidden = !shown
  $('reload').hidden = !notices.get('replaced')
}

// Announces changes to screen readers, those of 1.5 seconds together.
const announcements = []
function announce(text) {
  if (announcements.push(text) > 1) return
  setTimeout(() => {
    $('announcements').textContent =
      announcements.length > 3 ? `${announcements.length} users have changed` : announcements.join(', ')
    announcements.length = 0
  }, 1500)
}
