// The table of users. It is made for many: a change touches one row, however many changes there are the rows are arranged
// once a frame, only so many rows exist as somebody has scrolled to, and only those in view grow older.

import { showStatus } from './status.js'
import { initials, language, languages, now, plain, timeAgo } from './text.js'

const PAGE = 200 // how many rows are added at a time

const $ = (id) => document.getElementById(id)
const collator = new Intl.Collator(languages)

const template = document.createElement('template')
template.innerHTML = `
  <tr>
    <th scope="row"><span class="person">
      <span class="avatar" aria-hidden="true"></span>
      <span class="who"><bdi class="name"></bdi> <span class="you" hidden>you</span><bdi class="title muted"></bdi>
      <span class="declared"><bdi class="emoji"></bdi> <bdi class="text"></bdi></span></span>
    </span></th>
    <td class="status"><span class="dot" aria-hidden="true"></span><span class="word"></span></td>
    <td><time></time></td>
    <td class="number"></td>
  </tr>`.replace(/>\s+</g, '><').replace('</bdi><span class="you"', '</bdi> <span class="you"')

export class UserList {
  ownId = null

  #entries = new Map() // by id: { user, name, text (to search), row (null unless it is in the table) }
  #sorted = [] // the entries, by name
  #isSorted = true
  #online = 0
  #limit = PAGE // how many rows there may be
  #frame = 0
  #inView = new Set() // entries whose row is in view

  // `serverNow` returns the server's time.
  constructor(serverNow) {
    this.serverNow = serverNow
    this.observer = new IntersectionObserver((seen) => seen.forEach(({ target, isIntersecting }) => this.#look(target, isIntersecting)))
    document.querySelector('.filters').addEventListener('input', () => {
      this.#limit = PAGE
      this.#arrange()
    })
    document.querySelector('.filters').addEventListener('submit', (event) => event.preventDefault())
    const showMore = () => {
      this.#limit += PAGE
      this.#arrange()
    }
    $('more').addEventListener('click', showMore)
    // The rest follows by scrolling, too.
    new IntersectionObserver((seen) => seen.at(-1).isIntersecting && showMore(), { rootMargin: '600px' }).observe($('more'))
    setInterval(() => document.hidden || this.#inView.forEach((entry) => this.#showTime(entry)), 1000)
  }

  // Takes in changes as `watchPresence` reports them.
  apply(changes) {
    for (const { id, user, previous } of changes) {
      this.#online += Number(user?.is_online ?? 0) - Number(previous?.is_online ?? 0)
      const entry = this.#entries.get(id)
      if (!user) {
        this.#entries.delete(id)
        this.#isSorted = false
      } else if (!entry) {
        this.#entries.set(id, this.#describe({ id, row: null }, user))
        this.#isSorted = false
      } else {
        if (previous.name !== user.name) this.#isSorted = false
        this.#describe(entry, user)
        if (entry.row) this.#show(entry, previous)
      }
    }
    this.#frame ||= requestAnimationFrame(() => this.#arrange())
  }

  #describe(entry, user) {
    entry.user = user
    entry.name = plain(user.name)
    entry.text = `${user.name} ${user.title}`.toLocaleLowerCase()
    return entry
  }

  // --- Which rows there are, and in which order ---------------------------------------------------

  #arrange() {
    cancelAnimationFrame(this.#frame)
    this.#frame = 0
    if (!this.#isSorted) {
      this.#sorted = [...this.#entries.values()].sort((a, b) => collator.compare(a.name, b.name) || (a.id < b.id ? -1 : 1))
      this.#isSorted = true
    }
    const text = $('filter').value.trim().toLocaleLowerCase()
    const show = document.querySelector('input[name=show]:checked').value
    const matches = this.#sorted.filter(
      ({ user, text: own }) => (show === 'all' || user.is_online === (show === 'active')) && (!text || own.includes(text)),
    )
    this.#place(matches.slice(0, this.#limit))
    $('online').textContent = this.#online
    $('total').textContent = this.#entries.size
    $('more').hidden = matches.length <= this.#limit
    $('users').setAttribute('aria-rowcount', matches.length + 1)
    $('empty').hidden = matches.length > 0
    $('empty').textContent = this.#entries.size ? 'Nobody matches the filter.' : 'There are no users yet.'
  }

  // Moves as few rows as possible.
  #place(entries) {
    const placed = new Set(entries)
    for (const row of [...$('rows').children]) if (!placed.has(row.entry)) this.#remove(row)
    let next = $('rows').firstElementChild
    for (const entry of entries) {
      if (entry.row && entry.row === next) next = next.nextElementSibling
      else $('rows').insertBefore(entry.row ?? this.#create(entry), next)
    }
  }

  #create(entry) {
    const row = template.content.firstElementChild.cloneNode(true)
    row.entry = entry
    row.dataset.user = entry.id
    row.style.setProperty('--hue', [...entry.id].reduce((hue, char) => (hue * 137 + char.codePointAt(0) * 53) % 360, 7))
    entry.row = row
    this.observer.observe(row)
    this.#show(entry)
    return row
  }

  #remove(row) {
    this.observer.unobserve(row)
    this.#inView.delete(row.entry)
    row.entry.row = null
    row.remove()
  }

  // --- What a row shows -----------------------------------------------------------------------------

  #show(entry, previous) {
    const { user, row, name } = entry
    const set = (selector, text) => (row.querySelector(selector).textContent = text)
    set('.avatar', initials(name))
    set('.name', name)
    set('.title', plain(user.title))
    set('.emoji', plain(user.emoji ?? ''))
    set('.text', plain(user.status_text ?? ''))
    row.querySelector('.declared').hidden = !user.emoji && !user.status_text
    set('.number', user.sessions)
    row.querySelector('.you').hidden = user.id !== this.ownId
    showStatus(row.querySelector('.status'), user)
    row.classList.toggle('off', !user.is_online)
    if (previous && previous.is_online !== user.is_online) {
      // Each has an animation of its own, so that one after the other starts anew.
      row.classList.toggle('turned-on', user.is_online)
      row.classList.toggle('turned-off', !user.is_online)
    }
    this.#showTime(entry)
  }

  #showTime({ user, row }) {
    const time = row.querySelector('time')
    const isNever = user.last_seen === null
    const text = user.is_online ? now() : isNever ? 'never' : timeAgo(this.serverNow() - user.last_seen)
    if (time.textContent === text) return
    time.textContent = text
    time.lang = isNever ? 'en' : language
    if (isNever) return
    const lastSeen = new Date(user.last_seen)
    time.dateTime = lastSeen.toISOString()
    time.title = lastSeen.toLocaleString()
  }

  #look({ entry }, isInView) {
    if (!entry.row) return
    if (!isInView) return void this.#inView.delete(entry)
    this.#inView.add(entry)
    this.#showTime(entry)
  }

  // The user whose page this is has become known.
  setOwn(id) {
    const before = this.#entries.get(this.ownId)
    this.ownId = id
    for (const entry of [before, this.#entries.get(id)]) if (entry?.row) this.#show(entry)
  }
}
