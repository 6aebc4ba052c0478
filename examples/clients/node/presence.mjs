// A client in Node:  npm install && node presence.mjs

import pg from 'pg'

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/** Calls `told(user_id, status)` for everybody, then for every change, and loses none whatever happens to the connection. */
export class Follower {
  #epoch = null
  #seq = 0n // numbers are bigints: pg gives them as strings
  #users = new Map() // the number of each user's last change
  #isOver = false

  constructor(told) {
    this.told = told
  }

  async run() {
    while (!this.#isOver) {
      const client = new pg.Client()
      try {
        await this.#listen(client)
      } catch (error) {
        console.error(`disconnected: ${error.message}`)
        await sleep(1000)
      } finally {
        await client.end().catch(() => {})
      }
    }
  }

  stop() {
    this.#isOver = true
    this.wake?.()
  }

  async #listen(client) {
    const heard = []
    let failure = null
    client.on('notification', ({ payload }) => (heard.push(payload), this.wake?.()))
    client.on('error', (error) => ((failure = error), this.wake?.()))
    await client.connect()
    await client.query('LISTEN presence')
    await this.#catchUp(client)
    while (!this.#isOver) {
      if (failure) throw failure
      if (!heard.length) {
        // Half a minute without a word: ask.
        const timer = setTimeout(() => this.wake(), 30_000)
        await new Promise((resolve) => (this.wake = resolve))
        clearTimeout(timer)
        if (!heard.length && !failure && !this.#isOver) await this.#catchUp(client)
      } else if (!this.#apply(heard.shift())) await this.#catchUp(client)
    }
  }

  /** False where something before the message, or in it, has to be read. */
  #apply(payload) {
    let message
    try {
      message = JSON.parse(payload)
    } catch {
      return false // anybody may notify
    }
    const { epoch, prev, seq, changes } = message ?? {}
    if (epoch !== this.#epoch || ![prev, seq].every(Number.isSafeInteger) || BigInt(prev) > this.#seq) return false
    if (!Array.isArray(changes) || !changes.every((change) => Number.isSafeInteger(change?.seq) && change.seq <= seq)) return false
    for (const { seq, user_id, status } of changes) this.#take(seq, user_id, status)
    if (BigInt(seq) > this.#seq) this.#seq = BigInt(seq)
    return true
  }

  #take(seq, user_id, status) {
    if (BigInt(seq) <= (this.#users.get(user_id) ?? 0n)) return
    this.#users.set(user_id, BigInt(seq))
    this.told(user_id, status)
  }

  async #catchUp(client) {
    try {
      while (this.#epoch) {
        const since = 'SELECT seq, user_id, status FROM presence.changes_since($1, $2)'
        const { rows } = await client.query(since, [this.#seq, this.#epoch])
        if (!rows.length) break
        for (const { seq, user_id, status } of rows) if (user_id) this.#take(seq, user_id, status)
        this.#seq = BigInt(rows.at(-1).seq)
      }
    } catch (error) {
      if (error.code !== '72000') throw error
      this.#epoch = null // too long ago, or another line of numbers
    }
    const { epoch, seq } = (await client.query('SELECT epoch, seq FROM presence.presence_cursor()')).rows[0]
    if (epoch === this.#epoch && BigInt(seq) >= this.#seq) return
    // Start over, also where somebody has told of a number that there is not yet: what comes before would be missed.
    this.#users.clear()
    const { rows } = await client.query('SELECT seq, user_id, status FROM presence.user_presence')
    for (const { seq, user_id, status } of rows) this.#take(seq, user_id, status)
    this.#epoch = epoch
    this.#seq = BigInt(seq)
  }
}

// --- One visit -----------------------------------------------------------------------------

const pool = new pg.Pool()
pool.on('error', (error) => console.error(`disconnected: ${error.message}`)) // of an idle connection; nobody else is told
const call = async (sql, values) => (await pool.query(sql, values)).rows[0]
const { me } = await call("SELECT presence.presence_id('node') AS me")

const follower = new Follower((user_id, status) => {
  if (user_id !== me) return
  console.log(`told: ${status}`)
  if (status === 'active') visiting()
  else if (hasLeft) follower.stop()
})
let hasLeft = false
let visiting
const visit = new Promise((resolve) => (visiting = resolve))
const following = follower.run()

const session = await call("SELECT session_id, heartbeat_ms FROM presence.start_session(user_key => 'node')")
await visit
const beating = setInterval(
  () => call('SELECT presence.heartbeat($1)', [session.session_id]).catch(console.error),
  session.heartbeat_ms,
)
const { beat } = await call('SELECT presence.heartbeat($1) AS beat', [session.session_id])
console.log(`heartbeat: ${beat}`)
const list = "SELECT key, presence.is_online(presence.presence_id(key)) AS online FROM unnest($1::text[]) key"
for (const { key, online } of (await pool.query(list, [['node', 'nobody']])).rows) console.log(`${key}: ${online ? 'online' : 'offline'}`)

hasLeft = true
clearInterval(beating)
await call('SELECT presence.end_session($1)', [session.session_id])
await following
await pool.end()
