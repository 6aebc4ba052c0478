// A client in Node:  npm install && node presence.mjs

import pg from 'pg'

// A connection that was cut silently is given up after these limits, in milliseconds.
const limits = {
  connectionTimeoutMillis: 10_000,
  query_timeout: 10_000,
  keepAlive: true,
  keepAliveInitialDelayMillis: 10_000,
}
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/**
 * Calls `onStatus(user_id, status)` for everybody, then for every change. Loses no change, even after a disconnect.
 */
export class Follower {
  #epoch = null
  #seq = 0n // sequence numbers are bigints, which pg returns as strings
  #users = new Map() // the sequence number of each user's last change
  #isStopped = false

  constructor(onStatus) {
    this.onStatus = onStatus
  }

  async run() {
    while (!this.#isStopped) {
      const client = new pg.Client(limits)
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
    this.#isStopped = true
    this.wake?.()
  }

  async #listen(client) {
    const payloads = []
    let failure = null
    client.on('notification', ({ payload }) => (payloads.push(payload), this.wake?.()))
    client.on('error', (error) => ((failure = error), this.wake?.()))
    await client.connect()
    await client.query('LISTEN presence')
    await this.#catchUp(client)
    while (!this.#isStopped) {
      if (failure) throw failure
      if (!payloads.length) {
        // Catch up after 30 seconds without a notification.
        const timer = setTimeout(() => this.wake(), 30_000)
        await new Promise((resolve) => (this.wake = resolve))
        clearTimeout(timer)
        if (!payloads.length && !failure && !this.#isStopped) await this.#catchUp(client)
      } else if (!this.#apply(payloads.shift())) await this.#catchUp(client)
    }
  }

  /** Applies a notification. Returns false if changes before it or in it are missing and have to be read. */
  #apply(payload) {
    let message
    try {
      message = JSON.parse(payload)
    } catch {
      return false // anybody can NOTIFY
    }
    const { epoch, prev, seq, changes } = message ?? {}
    if (epoch !== this.#epoch || ![prev, seq].every(Number.isSafeInteger) || BigInt(prev) > this.#seq) return false
    if (!Array.isArray(changes) || !changes.every((change) => Number.isSafeInteger(change?.seq) && change.seq <= seq)) return false
    for (const { seq, user_id, status } of changes) this.#applyChange(seq, user_id, status)
    if (BigInt(seq) > this.#seq) this.#seq = BigInt(seq)
    return true
  }

  #applyChange(seq, user_id, status) {
    if (BigInt(seq) <= (this.#users.get(user_id) ?? 0n)) return
    this.#users.set(user_id, BigInt(seq))
    this.onStatus(user_id, status)
  }

  async #catchUp(client) {
    try {
      while (this.#epoch) {
        const since = 'SELECT seq, user_id, status FROM presence.changes_since($1, $2)'
        const { rows } = await client.query(since, [this.#seq, this.#epoch])
        if (!rows.length) break
        for (const { seq, user_id, status } of rows) if (user_id) this.#applyChange(seq, user_id, status)
        this.#seq = BigInt(rows.at(-1).seq)
      }
    } catch (error) {
      if (error.code !== '72000') throw error
      this.#epoch = null // the position is too old, or of another epoch
    }
    const { epoch, seq } = (await client.query('SELECT epoch, seq FROM presence.presence_cursor()')).rows[0]
    if (epoch === this.#epoch && BigInt(seq) >= this.#seq) return
    // Start over. Also if the known seq is beyond the end of the feed, as after a forged notification: changes up to it
    // would be missed.
    this.#users.clear()
    const { rows } = await client.query('SELECT seq, user_id, status FROM presence.user_presence')
    for (const { seq, user_id, status } of rows) this.#applyChange(seq, user_id, status)
    this.#epoch = epoch
    this.#seq = BigInt(seq)
  }
}

// --- One session ---------------------------------------------------------------------------

const pool = new pg.Pool(limits)
pool.on('error', (error) => console.error(`disconnected: ${error.message}`)) // an idle connection, so no query fails
const queryRow = async (sql, values) => (await pool.query(sql, values)).rows[0]
const { own_id } = await queryRow("SELECT presence.presence_id('node') AS own_id")

let hasEnded = false
let onActive
const isActive = new Promise((resolve) => (onActive = resolve))
const follower = new Follower((user_id, status) => {
  if (user_id !== own_id) return
  console.log(`status: ${status}`)
  if (status === 'active') onActive()
  else if (hasEnded) follower.stop()
})
const following = follower.run()

const session = await queryRow("SELECT session_id, heartbeat_ms FROM presence.start_session(user_key => 'node')")
await isActive
const heartbeats = setInterval(
  () => queryRow('SELECT presence.heartbeat($1)', [session.session_id]).catch(console.error),
  session.heartbeat_ms,
)
const { heartbeat } = await queryRow('SELECT presence.heartbeat($1)', [session.session_id])
console.log(`heartbeat: ${heartbeat}`)
const online = 'SELECT key, presence.is_online(presence.presence_id(key)) AS online FROM unnest($1::text[]) key'
for (const { key, online: isOnline } of (await pool.query(online, [['node', 'nobody']])).rows) {
  console.log(`${key}: ${isOnline ? 'online' : 'offline'}`)
}

hasEnded = true
clearInterval(heartbeats)
await queryRow('SELECT presence.end_session($1)', [session.session_id])
await following
await pool.end()
