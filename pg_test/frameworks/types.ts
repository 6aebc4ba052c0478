// What tsc has to accept, and what it has to refuse, of examples/models.

import { createClient } from '@supabase/supabase-js'
import { eq } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import type { Database } from './database.types.js'
import { userPresence, userSessions } from './drizzle.js'

export async function supabase() {
  const client = createClient<Database, 'presence'>('http://localhost', 'key', { db: { schema: 'presence' } })

  const { data: session } = await client.rpc('start_session', { metadata: { device: 'phone' } })
  const id: string = session!.session_id
  // @ts-expect-error an id is a string
  const number: number = session!.session_id

  const { data: beat } = await client.rpc('heartbeat', { session_id: id })
  const answer: 'ok' | 'ended' | 'unknown' = beat!
  // @ts-expect-error the argument is missing
  await client.rpc('heartbeat', {})
  // @ts-expect-error there is no such function
  await client.rpc('heart_beat', { session_id: id })

  const { data: users } = await client.rpc('presence_of', { user_ids: [id] })
  const online: boolean = users![0].is_online
  const seen: string | null = users![0].last_seen
  // @ts-expect-error null for an unknown user
  const always: string = users![0].last_seen

  const { data: rows } = await client.from('user_presence').select('user_id, status, seq').eq('is_online', true)
  const seq: number = rows![0].seq
  const status: 'active' | 'idle' | 'busy' | 'inactive' = rows![0].status
  // @ts-expect-error only the worker writes it
  await client.from('user_presence').insert({ user_id: id })

  const { data: cursor } = await client.rpc('presence_cursor')
  const { data: changes } = await client.rpc('changes_since', { seq: cursor!.seq, epoch: cursor!.epoch })
  const user: string | null = changes![0].user_id
  return [number, answer, online, seen, always, seq, status, user]
}

export async function orm() {
  const db = drizzle('postgresql://localhost/app')
  const [session] = await db.select().from(userSessions).where(eq(userSessions.isActive, true))
  const ended: Date | null = session!.endedAt
  // @ts-expect-error never null
  const nothing: null = session!.lastActivity
  await db.insert(userSessions).values({ userId: session!.userId })
  const [user] = await db.select().from(userPresence)
  const status: 'active' | 'idle' | 'busy' | 'inactive' = user!.status
  return [ended, nothing, status]
}
