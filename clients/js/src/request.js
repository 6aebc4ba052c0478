// Requests: the application's headers, a time limit, another try with fresh headers, and the wait after a failure.

const TIME_LIMIT = 20_000
const MIN_DELAY = 1000
const MAX_DELAY = 30_000
const MAX_RETRY_AFTER = 3_600_000

export function requester({ headers = {}, schema = 'presence', fetch }) {
  // Where several schemas are exposed, PostgREST looks for a function in the first one, unless told another.
  const ofBody = { 'Content-Type': 'application/json', ...(schema && { 'Content-Profile': schema }) }
  const send = (url, init) => (fetch ?? globalThis.fetch)(url, init)
  const self = {
    lastHeaders: {}, // for the request of a page that is closing, which has no time to ask for new ones

    // Sends a request, a POST if it has a body, and returns the response if it is a success. Else the error has the
    // `status` of the response, undefined if there is none, and its Retry-After in milliseconds. Whatever the response is
    // passed to is within the time limit, too.
    request(url, { body, signal, keepalive, accept = 'application/json', timeLimit = TIME_LIMIT } = {}, use = (response) => response) {
      return limited(signal, timeLimit, async (signal) => {
        for (let isRetry = false; ; isRetry = true) {
          self.lastHeaders = typeof headers === 'function' ? await headers() : headers
          const response = await send(url, {
            method: body === undefined ? 'GET' : 'POST',
            headers: { Accept: accept, ...(body !== undefined && ofBody), ...self.lastHeaders },
            body: body === undefined ? undefined : JSON.stringify(body),
            keepalive,
            signal,
          })
          if (response.ok) return use(response)
          // The token may have expired while the headers were on their way, or while the computer slept.
          if (response.status === 401 && typeof headers === 'function' && !isRetry) continue
          const { message } = await response.json().catch(() => ({}))
          throw Object.assign(new Error(message ?? `The server returned status ${response.status}.`), {
            status: response.status,
            retryAfter: retryAfter(response.headers?.get('Retry-After')),
          })
        }
      })
    },

    // PostgREST answers with no content where a function returns nothing.
    json: (url, body, options) =>
      self.request(url, { ...options, body }, (response) => (response.status === 204 ? null : response.json())),

    // Sends a request that outlives the page.
    async sendLast(url, body) {
      try {
        await send(url, {
          method: 'POST',
          keepalive: true,
          headers: { ...ofBody, ...self.lastHeaders },
          body: JSON.stringify(body),
        })
      } catch {
        // Nobody is left to tell.
      }
    },
  }
  return self
}

// Runs `work` with a signal that aborts with the other one or after the time limit; then `limited` rejects, whether
// `work` heeds the signal or not. AbortSignal.any() would do this in newer browsers.
async function limited(signal, ms, work) {
  const controller = new AbortController()
  const abort = () => controller.abort()
  const timer = setTimeout(abort, ms)
  signal?.addEventListener('abort', abort)
  if (signal?.aborted) abort()
  try {
    return await Promise.race([
      work(controller.signal),
      new Promise((_, reject) => {
        const refuse = () => reject(new Error(signal?.aborted ? 'The request was aborted.' : 'The server has not answered.'))
        controller.signal.addEventListener('abort', refuse)
        if (controller.signal.aborted) refuse()
      }),
    ])
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', abort)
  }
}

// Returns the milliseconds that a Retry-After header asks for: it has seconds, or a date.
export function retryAfter(value) {
  if (!value) return 0
  const ms = /^\s*\d+\s*$/.test(value) ? value * 1000 : Date.parse(value) - Date.now()
  return ms > 0 ? Math.min(ms, MAX_RETRY_AFTER) : 0
}

// Returns how long to wait after failures: longer each time, never exactly as long as others do, and not before the server
// wants to be asked again.
export function backOff() {
  let delay = 0
  return {
    get isFailing() {
      return delay > 0
    },
    reset() {
      delay = 0
    },
    next({ status, retryAfter = 0 } = {}) {
      // The same request will be refused again, unless it was only too early.
      const isRefused = status >= 400 && status < 500 && status !== 408 && status !== 425 && status !== 429
      delay = isRefused ? MAX_DELAY : Math.min(Math.max(delay * 2, MIN_DELAY), MAX_DELAY)
      return retryAfter + delay * (0.5 + Math.random() / 2)
    },
  }
}
