// What the browser provides, or something in its place where it does not.

const warn = (text, error) => console.warn(`pg_presence: ${text}`, error)

// Returns `on`, which adds a listener and returns a function that removes it, and `emit`, which calls them. The options
// `onName` are the first listeners. What a listener throws is reported as any uncaught error is, and stops nothing.
export function listeners(options, names) {
  const all = {}
  for (const name of names) {
    const first = options[`on${name[0].toUpperCase()}${name.slice(1)}`]
    all[name] = new Set(first && [first])
  }
  return {
    on(name, listener) {
      const added = (...args) => listener(...args)
      all[name].add(added)
      return () => all[name].delete(added)
    },
    emit(name, ...args) {
      for (const listener of [...all[name]]) {
        try {
          listener(...args)
        } catch (error) {
          setTimeout(() => {
            throw error
          })
        }
      }
    },
  }
}

// Keeps one record for all pages of the origin or, where the storage refuses that, for this page.
export function openStorage(key, storage) {
  let record = null
  let isBroken = false
  const attempt = (use) => {
    if (isBroken) return
    try {
      use(storage ?? localStorage)
    } catch (error) {
      isBroken = true
      warn('the storage cannot be used, so every page has a session of its own.', error)
    }
  }
  return {
    read() {
      attempt((storage) => {
        const text = storage.getItem(key)
        try {
          record = JSON.parse(text)
        } catch {
          record = null // somebody else's
        }
      })
      return record
    },
    write(next) {
      record = next
      attempt((storage) => (next ? storage.setItem(key, JSON.stringify(next)) : storage.removeItem(key)))
    },
  }
}

// A channel to the other tabs. Without one, each tab finds out with its next heartbeat.
export function openChannel(name, onMessage) {
  try {
    const channel = new BroadcastChannel(name)
    channel.onmessage = ({ data }) => onMessage(data)
    let isOpen = true
    return {
      post: (message) => isOpen && channel.postMessage(message),
      // Lets messages that were just posted go out first.
      close() {
        setTimeout(() => {
          isOpen = false
          channel.close()
        })
      },
    }
  } catch (error) {
    warn('there is no channel between tabs, so each sends heartbeats of its own.', error)
    return { post() {}, close() {} }
  }
}

// Runs `work` in one tab at a time where there are locks. They require https, and an origin.
export const inTurn = (name, signal, work) => locked(name, { signal }, work, work)

// Runs `work` in one of the tabs that ask for it at the same time. Without locks each of them runs it, one after the
// other, so that `work` can find it done.
export const inOneTab = (name, work) =>
  locked(name, { ifAvailable: true }, (lock) => lock && work(), async () => {
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 500))
    return work()
  }).catch(() => {}) // the page is being left

async function locked(name, options, work, workWithoutLock) {
  let hasRun = false
  try {
    return await navigator.locks.request(name, options, (lock) => {
      hasRun = true
      return work(lock)
    })
  } catch (error) {
    if (hasRun || options.signal?.aborted) throw error
    return workWithoutLock()
  }
}

export function pageTimer(tick) {
  let timer
  return {
    start(ms) {
      clearTimeout(timer)
      timer = setTimeout(tick, ms)
    },
    stop: () => clearTimeout(timer),
  }
}

// Browsers throttle the timers of hidden pages, but not those of workers.
export function workerTimer(tick) {
  const code = 'let t; onmessage = ({ data }) => { clearTimeout(t); t = setTimeout(() => postMessage(0), data) }'
  let worker, dueAt
  let timer = null // the page's, where there is no worker
  const fallBack = (error) => {
    if (timer) return
    warn("the page's policy allows no worker (worker-src blob:), so a hidden tab may show as inactive.", error)
    timer = pageTimer(tick)
    if (dueAt) timer.start(Math.max(dueAt - Date.now(), 0))
  }
  try {
    worker = new Worker(URL.createObjectURL(new Blob([code], { type: 'text/javascript' })))
    worker.onmessage = tick
    // A policy that forbids the worker is reported late in some browsers.
    worker.onerror = fallBack
  } catch (error) {
    fallBack(error)
  }
  return {
    start(ms) {
      dueAt = Date.now() + ms
      timer ? timer.start(ms) : worker.postMessage(ms)
    },
    stop() {
      worker?.terminate()
      timer?.stop()
    },
  }
}

// Returns 256 random bits in URL-safe base64.
export function newToken() {
  const bytes = crypto.getRandomValues(new Uint8Array(32))
  return btoa(String.fromCharCode(...bytes)).replace(/\+/g, '-').replace(/\//g, '_').replace(/=/g, '')
}
