// What docs/frameworks.md says of node-postgres, Drizzle, TypeORM and Sequelize: the calls that fail, and the lines
// that work.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import pg from 'pg'

const page = readFileSync(process.env.PAGE, 'utf8')
// Returns a line that the page shows, so that what is tested is what it says.
const documented = line => {
  assert(page.includes(line), `docs/frameworks.md does not show ${line}`)
  return line
}
const refused = (call, message) =>
  assert.rejects(call, error => (error.cause ?? error).message.includes(message), message)
const first = rows => Object.values(rows[0])[0]

const connection = { host: process.env.PGHOST, username: process.env.PGUSER, database: process.env.PGDATABASE }
const client = new pg.Client()
await client.connect()
const value = async (text, ...values) => first((await client.query(text, values)).rows)
const session = await value('SELECT session_id FROM presence.start_session(user_key => $1)', 42)

const drivers = {
  async pg() {
    assert.equal(await value('SELECT presence.heartbeat($1)', session), 'ok')
    assert.deepEqual(await value('SELECT presence.heartbeat_many($1)', [session]), [])
    assert.equal(await value(documented('SELECT presence.is_online(presence.presence_id($1))'), 42), true)
    await refused(() => value('SELECT presence.is_online($1)', 42), 'invalid input syntax for type uuid: "42"')
    const start = 'SELECT session_id FROM presence.start_session(user_key => $1, metadata => $2)'
    await value(start, 'a', { device: 'phone' })
  },

  async drizzle() {
    const { sql } = await import('drizzle-orm')
    const { drizzle } = await import('drizzle-orm/node-postgres')
    const db = drizzle(client)
    const call = async query => first((await db.execute(query)).rows)
    const ids = [session]
    assert.equal(await call(sql`SELECT presence.heartbeat(${session})`), 'ok')
    await refused(() => call(sql`SELECT presence.heartbeat_many(${ids})`), 'malformed array literal')
    documented('sql`SELECT presence.heartbeat_many(${sql.param(ids)})`')
    assert.deepEqual(await call(sql`SELECT presence.heartbeat_many(${sql.param(ids)})`), [])
  },

  async typeorm() {
    const { DataSource } = await import('typeorm')
    const db = new DataSource({ type: 'postgres', ...connection })
    await db.initialize()
    assert.equal(first(await db.query('SELECT presence.heartbeat($1)', [session])), 'ok')
    assert.deepEqual(first(await db.query('SELECT presence.heartbeat_many($1)', [[session]])), [])
    await db.destroy()
  },

  async sequelize() {
    const { QueryTypes, Sequelize } = await import('sequelize')
    const db = new Sequelize({ dialect: 'postgres', ...connection, logging: false })
    const call = async (text, options) => first(await db.query(text, { type: QueryTypes.SELECT, ...options }))
    assert.equal(await call('SELECT presence.heartbeat(:id)', { replacements: { id: session } }), 'ok')
    const ids = [session]
    const list = () => call('SELECT presence.heartbeat_many(:ids)', { replacements: { ids } })
    await refused(list, 'malformed array literal')
    documented('sequelize.query("SELECT presence.heartbeat_many($ids)", { bind: { ids } })')
    assert.deepEqual(await call('SELECT presence.heartbeat_many($ids)', { bind: { ids } }), [])
    const number = () => call('SELECT presence.is_online(:id)', { replacements: { id: 42 } })
    await refused(number, 'function presence.is_online(integer) does not exist')
    await db.close()
  },
}
await drivers[process.argv[2]]()
await client.end()
