import { useEffect, useRef, useState } from 'react'
import { startPresence, type Options, type Presence, type Status } from './presence.js'

/**
 * Keeps the signed-in user's session while the calling component is mounted. Use it in the layout of the pages that
 * require a login:
 *
 *   const { status, logout } = useSessionHeartbeat({ onEnded: () => router.push('/login') })
 */
export function useSessionHeartbeat(options: Options = {}, isSignedIn = true) {
  const [status, setStatus] = useState<Status>('starting')
  const presence = useRef<Presence | null>(null)
  // The callbacks of the latest render are called; changing them does not start a new session.
  const latest = useRef(options)
  useEffect(() => {
    latest.current = options
  })

  useEffect(() => {
    if (!isSignedIn) return
    const current = startPresence({
      ...latest.current,
      onStatus: (next) => (setStatus(next), latest.current.onStatus?.(next)),
      onEnded: () => latest.current.onEnded?.(),
      onError: (error) => latest.current.onError?.(error),
    })
    presence.current = current
    return () => current.stop()
  }, [isSignedIn])

  return { status, logout: async () => presence.current?.logout() }
}
