// The users page: shows who is online, as the event stream reports it.

import { startPresence } from './presence.js'

const $ = (id) => document.getElementById(id)
const STREAM_TIMEOUT = 15_000 // the server sends something every 5 seconds
const users = new Map() // by id: { user, row }
let ownId = null
let clockSkew = 0 // the server's clock minus the browser's

// --- The session -------------------------------------------------------------------------------

const presence = startPresence({
  metadata: { page: 'users', agent: navigator.userAgent.slice(0, 200) },
  onEnded: goToLogin,
  onError: (error) => error.status && setNotice('presence', error.message),
  onStatus: (status) => status === 'active' && setNotice('presence', ''),
})

$('logout').addEventListener('click', async () => {
  try {
    await presence.logout()
  } catch (error) {
    setNotice('logout', `You are still signed in. ${error.status ? error.message : 'The server cannot be reached.'}`)
  }
})

async function goToLogin() {
  const headers = { 'Content-Type': 'application/json' }
  const response = await fetch('/api/logout', { method: 'POST', headers, body: '{}' }).catch(() => null)
  if (response?.ok) return location.assign('/login')
  // The cookie is still valid: whoever opens the page next would be signed in.
  setNotice('logout', 'Signing out has not succeeded yet. Trying again…')
  setTimeout(goToLogin, 2000)
}

// --- The event stream ----------------------------------------------------------------------------

let stream, streamTimer, reconnectTimer
let reconnectDelay = 500

// Browsers open at most six connections to a server, over all tabs; a stream holds one, so hidden tabs close it.
function connect() {
  disconnect()
  if (document.hidden) return
  const opened = (stream = new EventSource('/api/events'))
  restartStreamTimer()
  stream.onerror = async () => {
    // An EventSource does not report why it failed, so send an ordinary request.
    const response = await fetch('/api/events', { method: 'HEAD' }).catch(() => null)
    if (stream !== opened) return
    if (response?.status === 401) return goToLogin()
    reconnect(response?.ok ? '' : `The ${response ? 'database' : 'server'} cannot be reached.`)
  }
  const on = (name, handle) =>
    stream.addEventListener(name, ({ data }) => {
      restartStreamTimer()
      handle(JSON.parse(data))
    })
  on('hello', (hello) => {
    ownId = hello.you
    clockSkew = hello.server_time - Date.now()
    reconnectDelay = 500
  })
  on('users', (snapshot) => {
    const removed = new Set(users.keys())
    for (const user of snapshot.users) {
      removed.delete(user.id)
      update(user)
    }
    for (const id of removed) {
      users.get(id).row.remove()
      users.delete(id)
    }
    snapshot.is_live ? showLive() : showDisconnected()
    arrangeRows()
  })
  on('user', (user) => {
    update(user)
    arrangeRows()
  })
  on('disconnected', showDisconnected)
  on('ping', () => {})
}

document.addEventListener('visibilitychange', connect)

function disconnect() {
  stream?.close()
  stream = null
  clearTimeout(streamTimer)
  clearTimeout(reconnectTimer)
}

// A lost connection may go unnoticed: without an event for some time, the stream counts as lost.
function restartStreamTimer() {
  clearTimeout(streamTimer)
  streamTimer = setTimeout(() => reconnect('The server has stopped responding.'), STREAM_TIMEOUT)
}

function reconnect(reason) {
  disconnect()
  if (reason) showOffline(reason)
  reconnectTimer = setTimeout(connect, reconnectDelay)
  reconnectDelay = Math.min(reconnectDelay * 2, 5000)
}

function showDisconnected() {
  showOffline('The database cannot be reached.')
}

function showOffline(reason) {
  setStreamState('Offline', `${reason} What you see may be out of date; it will update automatically.`)
}

function showLive() {
  setStreamState('Live', '')
  setNotice('logout', '')
}

function setStreamState(word, problem) {
  $('stream-word').textContent = word
  $('stream').classList.toggle('on', !problem)
  setNotice('stream', problem)
}

// One notice per topic; the first one that has text is shown.
const notices = new Map()
function setNotice(topic, text) {
  notices.set(topic, text)
  const shown = ['logout', 'stream', 'presence'].map((topic) => notices.get(topic)).find(Boolean) ?? ''
  if ($('notice').textContent !== shown) $('notice').textContent = shown
  $('notice').hidden = !shown
}

// --- The table -------------------------------------------------------------------------------------

function update(user) {
  let entry = users.get(user.id)
  if (!entry) {
    entry = { row: newRow(user.id), user: {} }
    users.set(user.id, entry)
  }
  const { row, user: previous } = entry
  entry.user = user
  const word = user.is_online ? 'Active' : 'Inactive'
  row.querySelector('.avatar').textContent = initials(user.name)
  row.querySelector('.name').textContent = user.name
  row.querySelector('.title').textContent = user.title
  row.querySelector('.you').hidden = user.id !== ownId
  row.querySelector('.status .dot').classList.toggle('on', user.is_online)
  row.querySelector('.word').textContent = word
  row.querySelector('.number').textContent = user.sessions
  row.classList.toggle('off', !user.is_online)
  if (user.id === ownId) $('own-name').textContent = user.name
  if (previous.id && previous.is_online !== user.is_online) {
    row.classList.remove('changed')
    void row.offsetWidth // restarts the animation
    row.classList.add('changed')
    announce(`${user.name} is ${word.toLowerCase()}`)
  }
  updateLastSeen(entry)
}

function newRow(id) {
  const row = document.createElement('tr')
  row.dataset.user = id
  row.innerHTML = `
    <th scope="row"><span class="person">
      <span class="avatar" aria-hidden="true"></span>
      <span><span class="name"></span> <span class="you" hidden>you</span><span class="title muted"></span></span>
    </span></th>
    <td class="status"><span class="dot" aria-hidden="true"></span><span class="word"></span></td>
    <td><time></time></td>
    <td class="number"></td>`
  row.style.setProperty('--hue', [...id].reduce((hue, char) => (hue * 137 + char.codePointAt(0) * 53) % 360, 7))
  return row
}

const initials = (name) => name.split(/\s+/).filter(Boolean).map((word) => [...word][0]).slice(0, 2).join('').toUpperCase()

// Sorts and filters the rows, moving as few as possible, and updates the counts.
function arrangeRows() {
  const text = $('filter').value.trim().toLocaleLowerCase()
  const show = document.querySelector('input[name=show]:checked').value
  const sorted = [...users.values()].sort((a, b) => a.user.name.localeCompare(b.user.name) || (a.user.id < b.user.id ? -1 : 1))
  let visible = 0
  sorted.forEach(({ user, row }, index) => {
    const matches = `${user.name} ${user.title}`.toLocaleLowerCase().includes(text)
    row.hidden = !matches || (show !== 'all' && user.is_online !== (show === 'active'))
    visible += !row.hidden
    if ($('rows').children[index] !== row) $('rows').insertBefore(row, $('rows').children[index] ?? null)
  })
  $('online').textContent = sorted.filter(({ user }) => user.is_online).length
  $('total').textContent = sorted.length
  $('empty').hidden = visible > 0
  $('empty').textContent = sorted.length ? 'Nobody matches the filter.' : 'There are no users yet.'
}
document.querySelector('.filters').addEventListener('input', arrangeRows)
document.querySelector('.filters').addEventListener('submit', (event) => event.preventDefault())

// --- Time ---------------------------------------------------------------------------------------------

const relativeTime = new Intl.RelativeTimeFormat('en', { numeric: 'auto' })
const UNITS = [['day', 86400], ['hour', 3600], ['minute', 60], ['second', 1]]

function timeAgo(at) {
  const seconds = Math.max(Math.round((Date.now() + clockSkew - at) / 1000), 0)
  if (seconds < 2) return 'just now'
  const [unit, size] = UNITS.find(([, size]) => seconds >= size)
  return relativeTime.format(-Math.floor(seconds / size), unit)
}

function updateLastSeen({ user, row }) {
  const time = row.querySelector('time')
  const text = user.is_online ? 'now' : user.last_seen === null ? 'never' : timeAgo(user.last_seen)
  if (time.textContent !== text) time.textContent = text
  if (user.last_seen === null) return
  const lastSeen = new Date(user.last_seen)
  time.dateTime = lastSeen.toISOString()
  time.title = lastSeen.toLocaleString()
}
setInterval(() => users.forEach(updateLastSeen), 1000)

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

connect()
