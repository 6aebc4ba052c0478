// The types of pg_presence for supabase-js and postgrest-js, exact where the generator has every column nullable:
//
//   const supabase = createClient<Database>(url, key, { db: { schema: 'presence' } })
//   const { data } = await supabase.rpc('start_session')     // data.session_id: string
//
// In an application with a schema of its own, merge it with the generated types:
//
//   type Merged = Omit<Generated, 'presence'> & Database
//
// A bigint is a number here, as in JSON. Times are strings.

export type Json = string | number | boolean | null | { [key: string]: Json | undefined } | Json[]

type Status = Database['presence']['Enums']['presence_status']

type User = {
  user_id: string
  user_key: string | null
  status: Status
  is_online: boolean
  last_seen: string | null
  session_count: number
  idle_since: string | null
  status_text: string | null
  emoji: string | null
  status_expires_at: string | null
}

type Session = {
  id: string
  user_id: string
  auth_id: string
  session_token: string
  is_active: boolean
  last_activity: string
  created_at: string
  expires_at: string
  metadata: Json
  ended_at: string | null
  user_key: string | null
}

type Change = {
  seq: number
  user_id: string | null
  user_key: string | null
  status: Status
  previous: Status
  changed_at: string
  last_seen: string | null
  reason: 'started' | 'resumed' | 'ended' | 'released' | 'timed_out' | 'expired' | 'deleted' | 'recovered' | 'idle' | 'returned' | 'declared'
  details: boolean
}

type DeclaredStatus = {
  user_id: string
  source: string
  status: 'busy' | 'away' | 'available' | null
  status_text: string | null
  emoji: string | null
  set_at: string
  expires_at: string | null
}

// A row of the table, which may also hide its user.
type StoredDeclaration = Omit<DeclaredStatus, 'status'> & {
  status: DeclaredStatus['status'] | 'invisible'
  by_user: boolean
  last_seen: string | null
  shown_at: string | null
}

type OwnPresence = {
  status: Status
  shown: Status
  is_invisible: boolean
  status_text: string | null
  emoji: string | null
  status_expires_at: string | null
  idle_since: string | null
  session_count: number
}

export type Database = {
  presence: {
    Tables: {
      user_sessions: { Row: Session; Insert: Partial<Session>; Update: Partial<Session>; Relationships: [] }
      user_presence: {
        Row: {
          user_id: string
          user_key: string | null
          status: Status
          is_online: boolean
          last_seen: string | null
          changed_at: string
          seq: number
          idle_since: string | null
          status_text: string | null
          emoji: string | null
          status_expires_at: string | null
        }
        Insert: never
        Update: never
        Relationships: []
      }
      presence_changes: { Row: Change; Insert: never; Update: never; Relationships: [] }
      declared_statuses: {
        Row: StoredDeclaration
        Insert: Partial<StoredDeclaration>
        Update: Partial<StoredDeclaration>
        Relationships: []
      }
    }
    Views: {
      presence_stats: {
        Row: {
          live_sessions: number
          known_sessions: number
          users_online: number
          known_users: number
          capacity: number
          used: number
          is_complete: boolean
          in_overflow: boolean
          overflowed: number
          evicted: number
          slow_calls: number
          beats: number
          rejected_beats: number
          unwritten_users: number
          changes: number
          notifications: number
          flushed_rows: number
          deactivated_rows: number
          deleted_rows: number
          worker_pid: number | null
          worker_started_at: string | null
          last_tick_at: string | null
          last_flush_at: string | null
          last_cleanup_at: string | null
          tick_ms: number
          flush_ms: number
          cleanup_ms: number
          oldest_unflushed_ms: number | null
          oldest_unwritten_ms: number | null
          set_aside: number
          last_error: string | null
          last_error_at: string | null
          notification_queue_usage: number
          epoch: string | null
          seq: number | null
        }
        Relationships: []
      }
    }
    Functions: {
      start_session: {
        Args: {
          user_id?: string
          user_key?: string
          metadata?: Json
          session_token?: string
          lifetime?: string
          auth_id?: string
        }
        Returns: {
          session_id: string
          session_token: string
          expires_at: string
          heartbeat_ms: number
          timeout_ms: number
          server_time: string
        }
      }
      start_sessions: {
        Args: { user_ids?: string[]; user_keys?: string[]; session_tokens?: string[]; metadata?: Json[] }
        Returns: { user_id: string; session_id: string | null }[]
      }
      heartbeat: { Args: { session_id: string }; Returns: 'ok' | 'ended' | 'unknown' }
      heartbeat_by_token: { Args: { session_token: string }; Returns: 'ok' | 'ended' | 'unknown' }
      heartbeat_idle: { Args: { session_id: string }; Returns: 'ok' | 'ended' | 'unknown' }
      heartbeat_idle_by_token: { Args: { session_token: string }; Returns: 'ok' | 'ended' | 'unknown' }
      set_status: {
        Args: {
          status?: 'busy' | 'dnd' | 'away' | 'available'
          status_text?: string
          emoji?: string
          expires_in?: string
          source?: string
          user_id?: string
        }
        Returns: DeclaredStatus
      }
      clear_status: { Args: { source?: string; user_id?: string }; Returns: boolean }
      set_invisible: { Args: { invisible: boolean; expires_in?: string; user_id?: string }; Returns: undefined }
      own_presence: { Args: { user_id?: string }; Returns: OwnPresence }
      heartbeat_many: { Args: { session_ids: string[] }; Returns: string[] }
      end_session: { Args: { session_id: string }; Returns: boolean }
      end_session_by_token: { Args: { session_token: string }; Returns: boolean }
      end_sessions: { Args: { session_ids: string[] }; Returns: number }
      end_user_sessions: { Args: { user_id?: string }; Returns: number }
      release_session: { Args: { session_id: string; grace?: string }; Returns: boolean }
      release_session_by_token: { Args: { session_token: string; grace?: string }; Returns: boolean }
      release_sessions: { Args: { session_ids: string[]; grace?: string }; Returns: number }
      bind_sessions: { Args: { session_ids: string[]; grace?: string }; Returns: string[] }
      rotate_session_token: { Args: { session_id: string }; Returns: string | null }
      is_online: { Args: { user_id: string }; Returns: boolean }
      user_status: { Args: { user_id: string }; Returns: Status }
      last_seen: { Args: { user_id: string }; Returns: string | null }
      presence_of: { Args: { user_ids?: string[]; user_keys?: string[] }; Returns: User[] }
      online_users: { Args: never; Returns: User[] }
      online_count: { Args: never; Returns: number }
      presence_id: { Args: { key: string }; Returns: string } | { Args: { number: number }; Returns: string }
      presence_cursor: { Args: never; Returns: { epoch: string; seq: number } }
      changes_since: { Args: { seq: number; epoch?: string; max_rows?: number }; Returns: Change[] }
      presence_health: {
        Args: never
        Returns: { check_name: string; ok: boolean; detail: string; hint: string | null }[]
      }
      presence_metrics: { Args: never; Returns: string }
      forget_user: { Args: { user_id: string }; Returns: boolean }
      cleanup_sessions: { Args: never; Returns: { deactivated: number; deleted: number } }
      is_service: { Args: never; Returns: boolean }
      presence_user_id: { Args: never; Returns: string | null }
      presence_auth_id: { Args: never; Returns: string | null }
      token_digest: { Args: { token: string }; Returns: string }
    }
    Enums: { presence_status: 'active' | 'idle' | 'busy' | 'inactive' }
    CompositeTypes: { [_ in never]: never }
  }
}
