// Tools that make the schema equal to a program's, beside the extension's tables. Afterwards the table of the program
// has a new column, and presence_health() finds nothing to mend.

import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'

const connection = { host: process.env.PGHOST, username: process.env.PGUSER, database: process.env.PGDATABASE }
const [, , tool, schema] = process.argv

const tools = {
  async typeorm() {
    const { DataSource, EntitySchema } = await import('typeorm')
    const user = new EntitySchema({
      name: 'AppUser',
      tableName: 'app_user',
      columns: { id: { type: 'uuid', primary: true }, email: { type: 'text', nullable: true } },
    })
    const presence = new EntitySchema({
      name: 'UserPresence',
      schema,
      tableName: 'user_presence',
      synchronize: false,
      columns: {
        userId: { name: 'user_id', type: 'uuid', primary: true },
        isOnline: { name: 'is_online', type: 'boolean' },
      },
    })
    const db = new DataSource({ type: 'postgres', ...connection, entities: [user, presence], synchronize: true })
    await db.initialize()
    await db.getRepository(presence).findBy({ isOnline: true })
    await db.destroy()
  },

  async sequelize() {
    const { DataTypes, Sequelize } = await import('sequelize')
    const db = new Sequelize({ dialect: 'postgres', ...connection, logging: false })
    // An instance of its own, which is never synchronized.
    const ours = new Sequelize({ dialect: 'postgres', ...connection, logging: false })
    const id = { type: DataTypes.UUID, primaryKey: true }
    db.define('AppUser', { id, email: DataTypes.TEXT }, { tableName: 'app_user', timestamps: false })
    const columns = { userId: { ...id, field: 'user_id' }, isOnline: { type: DataTypes.BOOLEAN, field: 'is_online' } }
    const presence = ours.define('UserPresence', columns, { schema, tableName: 'user_presence', timestamps: false })
    await db.sync({ alter: true })
    await presence.findAll({ where: { isOnline: true } })
    await db.close()
    await ours.close()
  },

  async drizzle() {
    const inPublic = schema === 'public'
    writeFileSync('schema.ts', `
      import { pgEnum, pgTable, text, uuid } from 'drizzle-orm/pg-core'
      export const users = pgTable('app_user', { id: uuid('id').primaryKey(), email: text('email') })
      ${inPublic ? "export const status = pgEnum('presence_status', ['active', 'idle', 'busy', 'inactive'])" : ''}
    `)
    const ours = ['!user_sessions', '!user_presence', '!presence_changes', '!_feed_state', '!declared_statuses', '!presence_stats']
    const credentials = { host: connection.host, user: connection.username, database: connection.database, ssl: false }
    const config = { dialect: 'postgresql', schema: './schema.ts', dbCredentials: credentials }
    writeFileSync('drizzle.config.json', JSON.stringify({ ...config, tablesFilter: inPublic ? ours : undefined }))
    const push = ['node_modules/drizzle-kit/bin.cjs', 'push', '--force', '--config=drizzle.config.json']
    execFileSync('node', push, { stdio: 'pipe' })
  },
}
await tools[tool]()
