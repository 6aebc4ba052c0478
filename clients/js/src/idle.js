// Whether somebody is at the computer: the browser's Idle Detection sees all windows, and the locked screen.

const MIN_THRESHOLD = 60_000 // browsers allow no shorter one

// Calls `onChange` with true or false, at first and whenever that changes, while the permission is granted; with null
// when it no longer is. Never asks for it. Browsers without Idle Detection know nothing.
export async function watchComputer(idleAfter, signal, onChange) {
  const threshold = Math.max(idleAfter, MIN_THRESHOLD)
  let detector = null

  async function start() {
    const own = (detector = new IdleDetector())
    const tell = () => own === detector && onChange(own.userState === 'active' && own.screenState === 'unlocked')
    own.addEventListener('change', tell)
    await own.start({ threshold, signal })
    tell()
  }

  async function follow({ state }) {
    if (state === 'granted') return start()
    detector = null
    onChange(null)
  }

  try {
    const permission = await navigator.permissions.query({ name: 'idle-detection' })
    permission.addEventListener('change', () => follow(permission).catch(() => {}), { signal })
    if (permission.state === 'granted') await start()
  } catch {
    // No such permission, or a frame that may not use it: what happens on the page is all there is.
  }
}
