/** What `start_session` returned, and the session's token. */
export interface Session {
  session_id: string
  token: string
  expires_at: string
  heartbeat_ms: number
  timeout_ms: number
  server_time: string
}

/**
 * - `starting`: no response has arrived yet
 * - `active`: the last heartbeat succeeded
 * - `quiet`: no activity on the page for a heartbeat interval; without any, the session times out
 * - `offline`: the last call failed and will be retried
 * - `ended`: signed out
 */
export type Status = 'starting' | 'active' | 'quiet' | 'offline' | 'ended'

export interface Options {
  /** `activity` (the default): users are online while they use the page. `connection`: while they have it open. */
  mode?: 'activity' | 'connection'
  /** The base URL of the functions. Default: `/rpc`. */
  url?: string
  /**
   * The schema of the extension, which PostgREST has to expose; sent as the header `Content-Profile`. Default: `presence`.
   * `null` sends none: PostgREST then uses the first schema that it exposes.
   */
  schema?: string | null
  /**
   * Headers to send, such as `Authorization` or `apikey`. A function is called before each request,
   * except for the one that a closing page sends, which reuses the last headers.
   */
  headers?: Record<string, string> | (() => Record<string, string> | Promise<Record<string, string>>)
  /** Describes the session: device, version… */
  metadata?: Record<string, unknown> | null
  /** Distinguishes several presences on the same origin. Default: `presence`. */
  name?: string
  onStatus?: (status: Status) => void
  /** The session is over: the user logged out, here or in another tab, or the server ended it. Show the login page. */
  onEnded?: () => void
  /** A call failed. The message can be shown to users; `status` is the HTTP status, undefined without a response. */
  onError?: (error: Error & { status?: number }) => void
}

export interface Presence {
  readonly status: Status
  readonly session: Session | null
  /** Sends a heartbeat now, regardless of activity. */
  beat(): Promise<void>
  /** Ends the session, in all tabs. If the server cannot be reached, rejects with a message for users. */
  logout(): Promise<void>
  /** Leaves as if the page were closed, without ending the session. */
  stop(): void
}

export function startPresence(options?: Options): Presence

/**
 * Call it after a login, before opening the page that calls `startPresence`. A page that finds its session ended calls
 * `onEnded`; after this call it starts a new session instead.
 */
export function afterLogin(name?: string): void
