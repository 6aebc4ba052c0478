// presence.js and the React hook, as other applications use them.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { cpSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { expectChanges, changesOf, newUser, PAGE, Person, advanceClock, untilBeatAfter, WEB } from './fixtures.mjs'
import { test, until } from './framework.mjs'

const here = fileURLToPath(new URL('.', import.meta.url))

// Copies the modules to where react is found beside them, with an application that uses them.
function application(code) {
  const dir = mkdtempSync(`${here}application-`)
  cpSync(WEB, dir, { recursive: true })
  symlinkSync(`${here}node_modules`, `${dir}/node_modules`)
  writeFileSync(`${dir}/application.tsx`, code)
  return dir
}

test('in connection mode an untouched page stays green', async () => {
  const ana = await Person.create()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  // Stands for another application of the same origin: the login page, which has no session.
  ana.stopMoving()
  await page.goto(`${PAGE}/login`)
  await page.evaluate(async () => {
    const { startPresence } = await import('/presence.js')
    window.presence = startPresence({ mode: 'connection' })
  })
  await untilBeatAfter(ana.user, 31)
  await expectChanges(ana.user, ['active started'])
})

// Returns a function that waits for the beat which the page at a path sends some seconds after its start: a beat in progress
// when the page is closed may arrive after the release.
function beatOf(page, path) {
  let count = 0
  page.on('response', (answer) => {
    count += answer.url().endsWith('/rpc/heartbeat') && answer.request().headers().referer === PAGE + path
  })
  return () => until(`a beat of ${path}`, () => count)
}

// Starts presence.js on a page that does not use it.
async function startAlone(person) {
  person.stopMoving()
  const beat = beatOf(person.page, '/login')
  await person.page.goto(`${PAGE}/login`)
  await person.page.evaluate(async () => {
    const { startPresence } = await import('/presence.js')
    window.seen = []
    window.presence = startPresence({
      headers: async () => ({ apikey: 'public' }),
      onStatus: (status) => window.seen.push(status),
    })
  })
  await until('active', () => person.page.evaluate(() => window.presence.status === 'active'))
  await beat()
}

test('a stopped presence does not beat any more', async () => {
  const ana = await Person.create()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await startAlone(ana)
  await page.evaluate(() => (window.presence.stop(), window.presence.beat()))
  await expectChanges(ana.user, ['active started', 'inactive released'])
})

test('the release has the headers of the last call', async () => {
  const ana = await Person.create()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await startAlone(ana)
  const [release] = await Promise.all([
    page.waitForRequest('**/rpc/release_session_by_token'),
    page.evaluate(() => window.presence.stop()),
  ])
  assert.equal(release.headers().apikey, 'public')
  // Where PostgREST exposes several schemas, it finds the functions by this one.
  assert.equal(release.headers()['content-profile'], 'presence')
})

test('two logouts at once are one', async () => {
  const ana = await Person.create()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await startAlone(ana)
  await page.evaluate(() => Promise.all([window.presence.logout(), window.presence.logout()]))
  await page.evaluate(() => window.presence.logout())
  assert.equal(await page.evaluate(() => window.presence.status), 'ended')
})

test('a clock that is set back does not stop the beats', async () => {
  const ana = await Person.create()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await advanceClock(page, -3_600_000)
  await untilBeatAfter(ana.user, 3)
})

test('activity before the computer slept does not count as activity after it', async () => {
  const ana = await Person.create()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await startAlone(ana)
  const last = () => page.evaluate(() => window.seen.at(-1))
  await ana.context.setOffline(true)
  await page.mouse.move(50, 60)
  await until('offline', async () => (await last()) === 'offline')
  await advanceClock(page, 8 * 3_600_000)
  await ana.context.setOffline(false)
  await until('another status', async () => (await last()) !== 'offline')
  assert.equal(await last(), 'quiet')
})

test('the hook starts a session, returns its status, and releases it when unmounted', async () => {
  const dir = application(`
    import { StrictMode, useState } from 'react'
    import { createRoot } from 'react-dom/client'
    import { useSessionHeartbeat } from './useSessionHeartbeat'
    function Layout() {
      const { status, logout } = useSessionHeartbeat({ onEnded: () => document.title = 'ended' })
      return <><output>{status}</output><button onClick={logout}>Log out</button></>
    }
    function Application() {
      const [isShown, show] = useState(true)
      return <>{isShown && <Layout />}<button onClick={() => show(!isShown)}>Toggle</button></>
    }
    createRoot(document.getElementById('root')!).render(<StrictMode><Application /></StrictMode>)`)
  const built = await build({
    entryPoints: [`${dir}/application.tsx`],
    bundle: true,
    format: 'esm',
    jsx: 'automatic',
    write: false,
  })
  const ana = await Person.create()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await page.route('**/react', (route) =>
    route.fulfill({ contentType: 'text/html', body: '<div id=root></div><script type=module src=/react.js></script>' }),
  )
  await page.route('**/react.js', (route) => route.fulfill({ contentType: 'text/javascript', body: built.outputFiles[0].text }))
  ana.stopMoving()
  const beat = beatOf(page, '/react')
  await page.goto(`${PAGE}/react`)
  const status = page.locator('output')
  await until('active', async () => (await status.textContent()) === 'active')
  await beat()
  await page.getByRole('button', { name: 'Toggle' }).click()
  await until('released', async () => (await changesOf(ana.user)).at(-1) === 'inactive released')
  await page.getByRole('button', { name: 'Toggle' }).click()
  await until('resumed', async () => (await changesOf(ana.user)).at(-1) === 'active resumed')
  await page.getByRole('button', { name: 'Log out' }).click()
  await until('ended', async () => (await page.title()) === 'ended')
  await until('the end is written', async () => (await changesOf(ana.user)).at(-1) === 'inactive ended')
})

test('the type declarations match the module', () => {
  const dir = application(`
    import { afterLogin, startPresence, type Presence, type Status } from './presence.js'
    import { useSessionHeartbeat } from './useSessionHeartbeat'
    const presence: Presence = startPresence({ mode: 'connection', headers: async () => ({ Authorization: 'Bearer …' }) })
    afterLogin()
    const status: Status = presence.status
    presence.session?.session_id.length
    // @ts-expect-error: no such mode
    startPresence({ mode: 'always' })
    export const hook: { status: Status } = useSessionHeartbeat()
    export { status }`)
  const tsc = `${here}node_modules/typescript/bin/tsc`
  const options = '--noEmit --strict --target es2022 --module esnext --moduleResolution bundler --jsx react-jsx'.split(' ')
  try {
    execFileSync(process.execPath, [tsc, ...options, `${dir}/application.tsx`], { encoding: 'utf8' })
  } catch (error) {
    assert.fail(error.stdout)
  }
})
