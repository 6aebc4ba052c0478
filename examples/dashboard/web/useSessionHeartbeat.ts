import { useEffect, useRef, useState } from 'react'
import { startPresence, type Options, type Presence, type Status } from './presence.js'

/**
 * Keeps the session of whoever is signed in while the component that calls it is shown. Put it into the layout of the
 * pages that need a login:
 *
 *   const { status, logout } = useSessionHeartbeat({ onEnded: () => router.push('/login') })
 */
export function useSessionHeartbeat(options: Options = {}, isSignedIn = true) {
  const [status, setStatus] = useState<Status>('starting')
  const presence = useRef<Presence | null>(null)
  // The callbacks of the last rendering count; a new one is no reason for a new session.
  const latest = useRef(options)
  useEffect(() => {
    latest.current = options
  })

  useEffect(() => {
    if (!isSignedIn) return
    const started = startPresence({
      ...latest.current,
      onStatus: (next) => (setStatus(next), latest.current.onStatus?.(next)),
      onEnded: () => latest.current.onEnded?.(),
      onError: (error) => latest.current.onError?.(error),
    })
    presence.current = started
    return () => started.stop()
  }, [isSignedIn])

  return { status, logout: async () => presence.current?.logout() }
}
