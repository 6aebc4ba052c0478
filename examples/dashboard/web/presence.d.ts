/** As `start_session` answers, and the session's token. */
export interface Session {
  session_id: string
  token: string
  expires_at: string
  heartbeat_ms: number
  timeout_ms: number
  server_time: string
}

/**
 * - `starting`: nothing has been answered yet
 * - `active`: the last heartbeat counted
 * - `quiet`: nothing has happened on the page for a heartbeat's interval; unless something does, the session times out
 * - `offline`: the last call failed; it is tried again
 * - `ended`: signed out
 */
export type Status = 'starting' | 'active' | 'quiet' | 'offline' | 'ended'

export interface Options {
  /** `activity`: only who does something is there (the default). `connection`: whoever has the page open. */
  mode?: 'activity' | 'connection'
  /** Where the functions are. Default: `/rpc`. */
  url?: string
  /**
   * To be sent along, such as a JWT, `apikey` or `Content-Profile`. A function is asked before each call, but not when
   * the page closes: what it answered last is sent then.
   */
  headers?: Record<string, string> | (() => Record<string, string> | Promise<Record<string, string>>)
  /** About the session: device, version… */
  metadata?: Record<string, unknown> | null
  /** Tells it from others at the same origin. Default: `presence`. */
  name?: string
  onStatus?: (status: Status) => void
  /** The session is over: logged out here or in another tab, or ended by the server. Time to show the login. */
  onEnded?: () => void
  /** A call failed. The message is for people; `status` is that of HTTP, or missing without an answer. */
  onError?: (error: Error & { status?: number }) => void
}

export interface Presence {
  readonly status: Status
  readonly session: Session | null
  /** A heartbeat now, whatever happened. */
  beat(): Promise<void>
  /** Ends the session, in all tabs. Fails with a message for people when the server cannot be reached. */
  logout(): Promise<void>
  /** Leaves as if the page closed, without ending the session. */
  stop(): void
}

export function startPresence(options?: Options): Presence

/**
 * To be called after a login, before the page that starts the presence. A session that has ended meanwhile shows the
 * login when its page is opened again; after this it is no reason to ask for another.
 */
export function hasLoggedIn(name?: string): void
