import type { DeclaredStatus, EndReason, OwnPresence, SessionOptions, SessionStatus, StatusToDeclare, User, WatchOptions, WatchStatus } from './index.js'

export interface UseSession {
  /** `ended` also while nobody is signed in. */
  status: SessionStatus
  /** Why the session has ended. */
  reason?: EndReason
  heartbeat(): Promise<void>
  /** Undefined while there is no session, as with the next three. */
  setStatus(declared: StatusToDeclare): Promise<DeclaredStatus | undefined>
  clearStatus(source?: 'manual' | 'text'): Promise<boolean | undefined>
  setInvisible(invisible: boolean, options?: { expiresIn?: number | string | null }): Promise<void>
  ownPresence(): Promise<OwnPresence | undefined>
  end(): Promise<void>
}

/**
 * Keeps the session of a login while the component is mounted; with the identity null, nobody is signed in. The callbacks
 * and headers of the latest render are used; another `identity`, `mode`, `url` or `name` starts another session.
 */
export function useSession(options: SessionOptions & { identity: string | null | undefined }): UseSession

export interface UsePresence<U = User> {
  status: WatchStatus
  /** By ID; users of whom nothing is known are missing. */
  users: ReadonlyMap<string, U>
}

/** Who of these users is there. All components share one stream for each `url`. */
export function usePresence<U = User>(
  ids: Iterable<string>,
  options?: Pick<WatchOptions<U>, 'url' | 'rpc' | 'interval' | 'headers' | 'fetch'>,
): UsePresence<U>
