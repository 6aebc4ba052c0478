// Hooks for React. On a server they return the state before the first answer.

import { useEffect, useRef, useState } from 'react'
import { keepSession } from './session.js'
import { watchPresence } from './watch.js'

// The latest value, for callbacks that outlive a render.
function useLatest(value) {
  const latest = useRef(value)
  useEffect(() => {
    latest.current = value
  })
  return latest
}

const resolve = ({ headers }) => (typeof headers === 'function' ? headers() : headers)

export function useSession(options) {
  const { identity, mode, idleAfter, url, name } = options
  const latest = useLatest(options)
  const session = useRef(null)
  const [state, setState] = useState({})
  const isSignedIn = identity !== null && identity !== undefined

  useEffect(() => {
    if (!isSignedIn) return
    // Not at once: in StrictMode React mounts, unmounts and mounts again.
    const timer = setTimeout(() => {
      session.current = keepSession({
        ...latest.current,
        headers: () => resolve(latest.current),
        onStatus: (status) => (setState({ identity, status }), latest.current.onStatus?.(status)),
        onEnded: (reason) => (setState({ identity, status: 'ended', reason }), latest.current.onEnded?.(reason)),
        onError: (error) => latest.current.onError?.(error),
      })
    })
    return () => {
      clearTimeout(timer)
      session.current?.release()
      session.current = null
      setState({})
    }
  }, [isSignedIn, identity, mode, idleAfter, url, name])

  // What was the status of another login is none of this one.
  const { status = 'starting', reason } = state.identity === identity ? state : {}
  return {
    status: isSignedIn ? status : 'ended',
    reason,
    heartbeat: async () => session.current?.heartbeat(),
    setStatus: async (declared) => session.current?.setStatus(declared),
    clearStatus: async (source) => session.current?.clearStatus(source),
    setInvisible: async (invisible, options) => session.current?.setInvisible(invisible, options),
    ownPresence: async () => session.current?.ownPresence(),
    end: async () => session.current?.end(),
  }
}

const sources = new Map() // what components share: one watcher for each address

function openSource(key, options, component) {
  let source = sources.get(key)
  if (!source) {
    source = { components: new Set([component]), latest: component.latest }
    source.watch = watchPresence({
      ...options,
      headers: () => resolve(source.latest.current),
      // Where the database is asked, it is for those whom a component shows.
      users: options.url ? undefined : () => new Set([...source.components].flatMap(({ ids }) => ids)),
    })
    sources.set(key, source)
  }
  source.components.add(component)
  source.latest = component.latest
  return source
}

function closeSource(key, source, component) {
  source.components.delete(component)
  // Not at once: the next page may show some of the same users.
  setTimeout(() => {
    if (source.components.size || sources.get(key) !== source) return
    source.watch.stop()
    sources.delete(key)
  }, 1000)
}

export function usePresence(ids, options = {}) {
  const { url, rpc, interval, fetch } = options
  const latest = useLatest(options)
  const [state, setState] = useState(NOTHING)
  const list = JSON.stringify([...new Set(ids)].sort())
  const key = JSON.stringify([url, rpc, interval])

  useEffect(() => {
    const component = { ids: JSON.parse(list), latest }
    const isKnown = sources.has(key)
    const source = openSource(key, { url, rpc, interval, fetch }, component)
    const { watch } = source
    const own = new Set(component.ids)
    const show = () => {
      const known = component.ids.filter((id) => watch.users.has(id))
      setState({ status: watch.status, users: new Map(known.map((id) => [id, watch.users.get(id)])) })
    }
    const removers = [
      watch.on('change', (changes) => changes.some(({ id }) => own.has(id)) && show()),
      watch.on('status', show),
    ]
    show()
    if (!url && isKnown && !component.ids.every((id) => watch.users.has(id))) {
      // Once for all components of this render.
      clearTimeout(source.refreshing)
      source.refreshing = setTimeout(watch.refresh)
    }
    return () => {
      for (const remove of removers) remove()
      closeSource(key, source, component)
    }
  }, [list, key])

  return state
}

const NOTHING = { status: 'connecting', users: new Map() }
