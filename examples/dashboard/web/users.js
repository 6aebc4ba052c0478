// The page: who is there, as the stream tells it.

import { startPresence } from './presence.js'

const $ = (id) => document.getElementById(id)
const SILENCE = 15_000 // the server says something every 5 seconds
const users = new Map() // by id: { user, row }
let you = null
let clockSkew = 0 // the server's clock minus ours

// --- Who you are -------------------------------------------------------------------------------

const presence = startPresence({
  metadata: { page: 'users', agent: navigator.userAgent.slice(0, 200) },
  onEnded: leave,
  onError: (error) => error.status && notify('presence', error.message),
  onStatus: (status) => status === 'active' && notify('presence', ''),
})

$('logout').addEventListener('click', async () => {
  try {
    await presence.logout()
  } catch (error) {
    notify('logout', `You are still signed in. ${error.status ? error.message : 'The server cannot be reached.'}`)
  }
})

async function leave() {
  const headers = { 'Content-Type': 'application/json' }
  const answer = await fetch('/api/logout', { method: 'POST', headers, body: '{}' }).catch(() => null)
  if (answer?.ok) return location.assign('/login')
  // Whoever opens the page again would still be signed in.
  notify('logout', 'You are not signed out yet: the server cannot do it at the moment. It is tried again.')
  setTimeout(leave, 2000)
}

// --- The stream ----------------------------------------------------------------------------------

let stream, silence, again
let pause = 500

// A browser has six connections to a server, for all tabs, and a stream takes one: only tabs that are seen have it.
function listen() {
  hush()
  if (document.hidden) return
  const opened = (stream = new EventSource('/api/events'))
  heard()
  stream.onerror = async () => {
    // Why, only another request is told.
    const answer = await fetch('/api/events', { method: 'HEAD' }).catch(() => null)
    if (stream !== opened) return
    if (answer?.status === 401) return leave()
    lost(answer?.ok ? '' : `The ${answer ? 'database' : 'server'} cannot be reached.`)
  }
  const on = (name, handle) =>
    stream.addEventListener(name, ({ data }) => {
      heard()
      handle(JSON.parse(data))
    })
  on('hello', (hello) => {
    you = hello.you
    clockSkew = hello.server_time - Date.now()
    pause = 500
  })
  on('users', (all) => {
    const gone = new Set(users.keys())
    for (const user of all.users) {
      gone.delete(user.id)
      put(user)
    }
    for (const id of gone) {
      users.get(id).row.remove()
      users.delete(id)
    }
    all.is_live ? live() : cut()
    arrange()
  })
  on('user', (user) => {
    put(user)
    arrange()
  })
  on('cut', cut)
  on('ping', () => {})
}

document.addEventListener('visibilitychange', listen)

function hush() {
  stream?.close()
  stream = null
  clearTimeout(silence)
  clearTimeout(again)
}

// A stream may also just fall silent.
function heard() {
  clearTimeout(silence)
  silence = setTimeout(() => lost('The server has fallen silent.'), SILENCE)
}

function lost(reason) {
  hush()
  if (reason) streamIs('Offline', `${reason} What you see may be out of date; it will catch up by itself.`)
  again = setTimeout(listen, pause)
  pause = Math.min(pause * 2, 5000)
}

function cut() {
  streamIs('Offline', 'The database cannot be reached. What you see may be out of date; it will catch up by itself.')
}

function live() {
  streamIs('Live', '')
  notify('logout', '')
}

function streamIs(word, trouble) {
  $('stream-word').textContent = word
  $('stream').classList.toggle('on', !trouble)
  notify('stream', trouble)
}

// What is wrong, by what it is about: first what somebody has asked for.
const notices = new Map()
function notify(about, text) {
  notices.set(about, text)
  const said = ['logout', 'stream', 'presence'].map((about) => notices.get(about)).find(Boolean) ?? ''
  if ($('notice').textContent !== said) $('notice').textContent = said
  $('notice').hidden = !said
}

// --- The table -------------------------------------------------------------------------------------

function put(user) {
  let known = users.get(user.id)
  if (!known) {
    known = { row: newRow(user.id), user: {} }
    users.set(user.id, known)
  }
  const { row, user: before } = known
  known.user = user
  const word = user.is_online ? 'Active' : 'Inactive'
  row.querySelector('.avatar').textContent = initials(user.name)
  row.querySelector('.name').textContent = user.name
  row.querySelector('.title').textContent = user.title
  row.querySelector('.you').hidden = user.id !== you
  row.querySelector('.status .dot').classList.toggle('on', user.is_online)
  row.querySelector('.word').textContent = word
  row.querySelector('.number').textContent = user.sessions
  row.classList.toggle('off', !user.is_online)
  if (user.id === you) $('me').textContent = user.name
  if (before.id && before.is_online !== user.is_online) {
    row.classList.remove('changed')
    void row.offsetWidth // so that the glow begins again
    row.classList.add('changed')
    announce(`${user.name} is ${word.toLowerCase()}`)
  }
  age(known)
}

function newRow(id) {
  const row = document.createElement('tr')
  row.dataset.user = id
  row.innerHTML = `
    <th scope="row"><span class="person">
      <span class="avatar" aria-hidden="true"></span>
      <span><span class="name"></span> <span class="you" hidden>you</span><span class="title quiet"></span></span>
    </span></th>
    <td class="status"><span class="dot" aria-hidden="true"></span><span class="word"></span></td>
    <td><time></time></td>
    <td class="number"></td>`
  row.style.setProperty('--hue', [...id].reduce((hue, char) => (hue * 137 + char.codePointAt(0) * 53) % 360, 7))
  return row
}

const initials = (name) => name.split(/\s+/).filter(Boolean).map((word) => [...word][0]).slice(0, 2).join('').toUpperCase()

// Puts the rows in order, as few as have to move, and counts.
function arrange() {
  const text = $('filter').value.trim().toLocaleLowerCase()
  const show = document.querySelector('input[name=show]:checked').value
  const sorted = [...users.values()].sort((a, b) => a.user.name.localeCompare(b.user.name) || (a.user.id < b.user.id ? -1 : 1))
  let visible = 0
  sorted.forEach(({ user, row }, place) => {
    const matches = `${user.name} ${user.title}`.toLocaleLowerCase().includes(text)
    row.hidden = !matches || (show !== 'all' && user.is_online !== (show === 'active'))
    visible += !row.hidden
    if ($('rows').children[place] !== row) $('rows').insertBefore(row, $('rows').children[place] ?? null)
  })
  $('online').textContent = sorted.filter(({ user }) => user.is_online).length
  $('total').textContent = sorted.length
  $('empty').hidden = visible > 0
  $('empty').textContent = sorted.length ? 'Nobody matches the filter.' : 'There are no users yet.'
}
document.querySelector('.tools').addEventListener('input', arrange)
document.querySelector('.tools').addEventListener('submit', (event) => event.preventDefault())

// --- Time ---------------------------------------------------------------------------------------------

const relative = new Intl.RelativeTimeFormat('en', { numeric: 'auto' })
const UNITS = [['day', 86400], ['hour', 3600], ['minute', 60], ['second', 1]]

function ago(at) {
  const seconds = Math.max(Math.round((Date.now() + clockSkew - at) / 1000), 0)
  if (seconds < 2) return 'just now'
  const [unit, size] = UNITS.find(([, size]) => seconds >= size)
  return relative.format(-Math.floor(seconds / size), unit)
}

function age({ user, row }) {
  const time = row.querySelector('time')
  const text = user.is_online ? 'now' : user.last_seen === null ? 'never' : ago(user.last_seen)
  if (time.textContent !== text) time.textContent = text
  if (user.last_seen === null) return
  const seen = new Date(user.last_seen)
  time.dateTime = seen.toISOString()
  time.title = seen.toLocaleString()
}
setInterval(() => users.forEach(age), 1000)

// Tells a screen reader, a few at a time.
const news = []
function announce(text) {
  if (news.push(text) > 1) return
  setTimeout(() => {
    $('news').textContent = news.length > 3 ? `${news.length} users have changed` : news.join(', ')
    news.length = 0
  }, 1500)
}

listen()
