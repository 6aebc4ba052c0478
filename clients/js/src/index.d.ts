/** Headers to send, such as `Authorization` or `apikey`. A function is called before each request. */
export type Headers = Record<string, string> | (() => Record<string, string> | Promise<Record<string, string>>)

/** A call that failed. The message can be shown to users. */
export interface RequestError extends Error {
  /** The HTTP status; undefined without a response. */
  status?: number
  /** How many milliseconds the server asks to wait, in its header Retry-After. */
  retryAfter?: number
}

interface RequestOptions {
  /**
   * After a response 401, a function is called again, and the request sent once more. The request of a page that is
   * closing reuses the last headers.
   */
  headers?: Headers
  /**
   * The schema of the extension, which PostgREST has to expose; sent with each call as the header `Content-Profile`.
   * Default: `presence`. `null` sends none: PostgREST then uses the first schema that it exposes.
   */
  schema?: string | null
  /** Used instead of `fetch`. */
  fetch?: typeof fetch
}

// --- Sessions -----------------------------------------------------------------------------------

/** What `start_session` returned, and the session's token. */
export interface StartedSession {
  session_id: string
  token: string
  expires_at: string
  heartbeat_ms: number
  timeout_ms: number
  server_time: string
}

/**
 * - `starting`: no response has arrived yet
 * - `live`: the last heartbeat is less than the timeout ago
 * - `timed_out`: it is longer ago, as nobody uses the page; the next activity makes the session live again
 * - `failing`: the last call failed and will be retried
 * - `ended`: the session is over
 */
export type SessionStatus = 'starting' | 'live' | 'timed_out' | 'failing' | 'ended'

/**
 * - `ended`: the user logged out, here or in another tab, or the server ended the session
 * - `unauthorized`: the server answers 401, also with fresh headers
 * - `replaced`: another user has signed in, in another tab
 */
export type EndReason = 'ended' | 'unauthorized' | 'replaced'

export interface SessionEvents {
  status: (status: SessionStatus) => void
  ended: (reason: EndReason) => void
  error: (error: RequestError) => void
}

export interface SessionOptions extends RequestOptions {
  /**
   * Names the login: the ID of the login if it has one (as the claim `session_id`), else the ID of the user. A page that
   * finds the session of another login ends it and starts a new one; one that finds its own session ended is ended, too.
   * Without an identity, the database alone tells users apart.
   */
  identity?: string | null
  /**
   * - `activity` (the default): users are online while they use the page
   * - `connection`: while they have it open
   * - `idle`: while they have it open, and idle while nobody is there
   */
  mode?: 'activity' | 'connection' | 'idle'
  /**
   * In the mode `idle`, after how many milliseconds without activity in any tab nobody is there. Where the permission
   * `idle-detection` has been granted, the browser says whether somebody is at the computer instead (after 60,000 at
   * least). Default: 60,000.
   */
  idleAfter?: number
  /** The base URL of the functions, as PostgREST serves them. Default: `/rpc`. */
  url?: string
  /** Describes the session: device, version… */
  metadata?: Record<string, unknown> | null
  /** Distinguishes several sessions on the same origin. Default: `pg_presence`. */
  name?: string
  /** Keeps the session for other tabs and later pages. Default: `localStorage`. */
  storage?: Pick<Storage, 'getItem' | 'setItem' | 'removeItem'>
  onStatus?: SessionEvents['status']
  /** Show the login page; or, if another user has signed in, say so. */
  onEnded?: SessionEvents['ended']
  onError?: SessionEvents['error']
}

/** What a user declares. At least one of status, text and emoji. */
export interface StatusToDeclare {
  /** `available`: as if nothing were declared. */
  status?: 'busy' | 'away' | 'available' | null
  /** Up to 140 characters. */
  text?: string | null
  /** Up to 64 bytes. */
  emoji?: string | null
  /** Milliseconds, or an interval as PostgreSQL reads it, as `1 hour`. Default: until it is cleared. */
  expiresIn?: number | string | null
  /** Default: `manual`. With `text`, a text of its own beside the status. */
  source?: 'manual' | 'text'
}

/** What is declared, as stored. */
export interface DeclaredStatus {
  user_id: string
  source: string
  status: string | null
  status_text: string | null
  emoji: string | null
  set_at: string
  expires_at: string | null
}

/** What the user is, hidden or not, and what others are shown. */
export interface OwnPresence {
  status: 'active' | 'idle' | 'busy' | 'inactive'
  shown: 'active' | 'idle' | 'busy' | 'inactive'
  is_invisible: boolean
  status_text: string | null
  emoji: string | null
  status_expires_at: string | null
  idle_since: string | null
  session_count: number
}

export interface Session {
  readonly status: SessionStatus
  readonly session: StartedSession | null
  /** Adds a listener, and returns a function that removes it. */
  on<Name extends keyof SessionEvents>(name: Name, listener: SessionEvents[Name]): () => void
  /** Sends a heartbeat now, regardless of activity; in the mode `idle`, it counts as activity. */
  heartbeat(): Promise<void>
  /** Declares a status, a text, an emoji, in place of what the same source has declared. */
  setStatus(declared: StatusToDeclare): Promise<DeclaredStatus>
  /** Takes back what a source has declared; the result is whether it was still valid. Default: `manual`. */
  clearStatus(source?: 'manual' | 'text'): Promise<boolean>
  /** Hides the user, who then shows as offline, or shows the user again. `expiresIn`: for how long it hides; default: until shown. */
  setInvisible(invisible: boolean, options?: { expiresIn?: number | string | null }): Promise<void>
  /** What the user is, hidden or not, which is told to nobody else. */
  ownPresence(): Promise<OwnPresence>
  /** Calls a function of the database with the session's headers. */
  call<Result = unknown>(name: string, args: object): Promise<Result>
  /** Ends the session, in all tabs. Rejects, with a message for users, if the server cannot do it. */
  end(): Promise<void>
  /** Leaves as if the page were closed, without ending the session. */
  release(): void
}

export function keepSession(options?: SessionOptions): Session

// --- Who is there ---------------------------------------------------------------------------------

/** A row of `presence_of` or `online_users`, or what the stream of your server has: `user_id` or `id` names the user. */
export type User = Record<string, any>

export interface Change<U = User> {
  id: string
  /** Null if the user is gone. */
  user: U | null
  /** Undefined if the user was not known. */
  previous?: U
}

/**
 * - `connecting`: no answer has arrived yet
 * - `live`: what is known is right
 * - `stale`: what is known is as of `updatedAt`
 */
export type WatchStatus = 'connecting' | 'live' | 'stale'

export interface WatchEvents<U = User> {
  /** Everybody is known: at first, and after each gap. The changes have been told before. */
  sync: (users: Map<string, U>) => void
  change: (changes: Change<U>[]) => void
  status: (status: WatchStatus, error: RequestError | null) => void
  /** An event of the stream that this package does not know. */
  event: (name: string, data: any) => void
  error: (error: RequestError) => void
}

export interface WatchOptions<U = User> extends RequestOptions {
  /**
   * A stream of server-sent events `users` (`{"users": [user, …]}`: everybody), then `user` (one user who has changed).
   * Where no stream gets through, the same address is asked for JSON: `{"users": [user, …]}`.
   */
  url?: string
  /** The base URL of `presence_of` and `online_users`, to be asked instead of a stream. Default without `url`: `/rpc`. */
  rpc?: string
  /** The IDs of the users to watch. Default: all. A function is called for each answer. */
  users?: Iterable<string> | (() => Iterable<string>)
  /** The milliseconds between two requests where there is no stream. Default: 10,000. */
  interval?: number
  onSync?: WatchEvents<U>['sync']
  onChange?: WatchEvents<U>['change']
  onStatus?: WatchEvents<U>['status']
  onEvent?: WatchEvents<U>['event']
  onError?: WatchEvents<U>['error']
}

export interface Watch<U = User> {
  /** By ID. */
  readonly users: ReadonlyMap<string, U>
  readonly status: WatchStatus
  /** Why the status is `stale`. */
  readonly error: RequestError | null
  /** When the users were last known to be right, in milliseconds of this computer's clock. */
  readonly updatedAt: number | null
  /** The server's time, in milliseconds, if it tells (`server_time` in an event); else this computer's. */
  now(): number
  /** Adds a listener, and returns a function that removes it. */
  on<Name extends keyof WatchEvents<U>>(name: Name, listener: WatchEvents<U>[Name]): () => void
  /** Asks again now. */
  refresh(): void
  stop(): void
}

export function watchPresence<U = User>(options?: WatchOptions<U>): Watch<U>
