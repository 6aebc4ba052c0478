// The tables of pg_presence for Drizzle, to query them. Keep this file out of the `schema` of drizzle.config.ts: what is
// in there, drizzle-kit creates and alters.

import { sql } from 'drizzle-orm'
import { bigint, boolean, jsonb, pgSchema, text, timestamp, uuid } from 'drizzle-orm/pg-core'

export const presence = pgSchema('presence')

export const presenceStatus = presence.enum('presence_status', ['active', 'idle', 'busy', 'inactive'])

const time = (name: string) => timestamp(name, { withTimezone: true })
// The database has a default; an insert sends the keyword.
const fallback = sql`default`

export const userSessions = presence.table('user_sessions', {
  id: uuid('id').primaryKey().default(fallback),
  userId: uuid('user_id').notNull().default(fallback),
  authId: uuid('auth_id').notNull().default(fallback),
  sessionToken: text('session_token').notNull().default(fallback),
  isActive: boolean('is_active').notNull().default(true),
  lastActivity: time('last_activity').notNull().default(fallback),
  createdAt: time('created_at').notNull().default(fallback),
  expiresAt: time('expires_at').notNull().default(fallback),
  metadata: jsonb('metadata').$type<Record<string, unknown>>().notNull().default({}),
  endedAt: time('ended_at'),
  userKey: text('user_key'),
})

export const userPresence = presence.table('user_presence', {
  userId: uuid('user_id').primaryKey(),
  userKey: text('user_key'),
  status: presenceStatus('status').notNull(),
  isOnline: boolean('is_online').notNull(),
  lastSeen: time('last_seen'),
  changedAt: time('changed_at').notNull(),
  seq: bigint('seq', { mode: 'number' }).notNull(),
  idleSince: time('idle_since'),
  statusText: text('status_text'),
  emoji: text('emoji'),
  statusExpiresAt: time('status_expires_at'),
})

export const presenceChanges = presence.table('presence_changes', {
  seq: bigint('seq', { mode: 'number' }).primaryKey(),
  userId: uuid('user_id'),
  userKey: text('user_key'),
  status: presenceStatus('status').notNull(),
  previous: presenceStatus('previous').notNull(),
  changedAt: time('changed_at').notNull(),
  lastSeen: time('last_seen'),
  reason: text('reason').notNull(),
  details: boolean('details').notNull(),
})
