// The menu by which users declare what they are doing.

import { showStatus, wordOf } from './status.js'
import { isolated, languages, plain } from './text.js'

const $ = (id) => document.getElementById(id)

const untilMidnight = () => new Date().setHours(24, 0, 0, 0) - Date.now()
const DURATIONS = { 'half-hour': () => 30 * 60_000, hour: () => 60 * 60_000, today: untilMidnight, cleared: () => undefined }

export class OwnStatus {
  #session
  #user = null
  #isChosen = false // whether the form has been touched since it was opened
  #isInvisible = false // which only the user is told
  #looks = 0
  #isSending = false

  // `session` is that of `keepSession`; `announce` tells a screen reader.
  constructor(session, announce) {
    this.#session = session
    const [menu, form] = [$('own'), $('own-form')]
    menu.addEventListener('toggle', () => menu.open && this.#open())
    menu.addEventListener('keydown', ({ key }) => key === 'Escape' && menu.open && this.#close())
    // Somebody has turned to something else.
    document.addEventListener('pointerdown', ({ target }) => menu.contains(target) || (menu.open = false))
    form.addEventListener('input', ({ target }) => (this.#isChosen ||= target !== $('invisible')))
    $('invisible').addEventListener('change', ({ target: { checked } }) =>
      this.#send(async () => {
        await this.#session.setInvisible(checked)
        await this.#look()
        announce(checked ? 'You are invisible' : 'You are shown again')
      }),
    )
    form.addEventListener('submit', (event) => {
      event.preventDefault()
      this.#send(async () => {
        const { status, text, emoji, duration } = Object.fromEntries(new FormData(form))
        const expiresIn = DURATIONS[duration]()
        await this.#session.setStatus({ status, text: text.trim() || null, emoji: emoji.trim() || null, expiresIn })
        form.reset()
        announce('Your status is set')
      })
    })
    $('clear').addEventListener('click', () =>
      this.#send(async () => {
        await this.#session.clearStatus()
        form.reset()
        announce('Your status is cleared')
      }),
    )
  }

  // Takes in what the page knows of its own user.
  show(user) {
    this.#user = user
    $('own').hidden = false
    $('own-name').textContent = plain(user.name)
    $('own-emoji').textContent = plain(user.emoji ?? '')
    if (!this.#isChosen) this.#choose()
    // Who is invisible is told to be offline as everybody is.
    if (user.status === 'inactive') this.#look().catch(() => {})
    else this.#setInvisible(false)
  }

  // Asks whether the user is invisible.
  async #look() {
    const look = ++this.#looks
    this.#render()
    const { is_invisible } = await this.#session.ownPresence()
    // It may have been asked again, or told, meanwhile.
    if (look === this.#looks) this.#setInvisible(is_invisible)
  }

  #setInvisible(isInvisible) {
    this.#looks++
    this.#isInvisible = isInvisible
    this.#render()
  }

  #render() {
    const user = this.#user
    showStatus($('own-summary'), user)
    if (this.#isInvisible) $('own-summary').querySelector('.word').textContent = 'Invisible'
    $('own-shown').textContent = this.#isInvisible
      ? 'You are invisible. To everybody else you are offline.'
      : `You are shown as ${sentenceOf(user)}`
    // It says what is asked for until the answer is there.
    if (!this.#isSending) $('invisible').checked = this.#isInvisible
  }

  #open() {
    this.#isChosen = false
    $('own-problem').textContent = ''
    this.#choose()
  }

  #choose() {
    const { status } = this.#user
    const chosen = { busy: 'busy', idle: 'away' }[status] ?? 'available'
    $('own-form').elements.status.value = chosen
  }

  #close() {
    $('own').open = false
    $('own-summary').focus()
  }

  // What has been declared is shown once the database tells it, as to everybody.
  async #send(request) {
    const buttons = $('own-form').querySelectorAll('button')
    for (const button of buttons) button.disabled = true
    this.#isSending = true
    try {
      await request()
      if ($('own').open) this.#close()
    } catch (error) {
      $('own-problem').textContent = error.status ? error.message : 'The server cannot be reached. Please try again.'
    }
    for (const button of buttons) button.disabled = false
    this.#isSending = false
    this.#render() // also where a form that is reset, or a request that has failed, has left something else
  }
}

function sentenceOf(user) {
  const declared = [user.emoji, user.status_text].filter(Boolean).map(isolated).join(' ')
  const until = user.status_expires_at && ` until ${timeOf(user.status_expires_at)}`
  return `${wordOf(user).toLowerCase()}${declared && `, ${declared}`}${until || ''}.`
}

function timeOf(ms) {
  const date = new Date(ms)
  const isToday = date.toDateString() === new Date().toDateString()
  return date.toLocaleString(languages, isToday ? { timeStyle: 'short' } : { dateStyle: 'medium', timeStyle: 'short' })
}
