// presence.js and the hook, as other applications use them.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { cpSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { changesAre, changesOf, newUser, PAGE, Person, setClock, untilHeardAfter, WEB } from './stage.mjs'
import { test, until } from './test.mjs'

const here = fileURLToPath(new URL('.', import.meta.url))

// A copy of the modules where react can be found beside them, and an application that uses them.
function application(code) {
  const dir = mkdtempSync(`${here}application-`)
  cpSync(WEB, dir, { recursive: true })
  symlinkSync(`${here}node_modules`, `${dir}/node_modules`)
  writeFileSync(`${dir}/application.tsx`, code)
  return dir
}

test('in the mode connection an untouched page stays green', async () => {
  const ana = await Person.sit()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  // Another application at the same origin, as it were: its page is the login's, which has no session.
  ana.still()
  await page.goto(`${PAGE}/login`)
  await page.evaluate(async () => {
    const { startPresence } = await import('/presence.js')
    window.presence = startPresence({ mode: 'connection' })
  })
  await untilHeardAfter(ana.user, 31)
  await changesAre(ana.user, ['active started'])
})

// To wait with for the beat that the page at a path sends some seconds after its start: one that is still under way when
// somebody leaves may arrive after the goodbye.
function beatOf(page, path) {
  let count = 0
  page.on('response', (answer) => {
    count += answer.url().endsWith('/rpc/heartbeat') && answer.request().headers().referer === PAGE + path
  })
  return () => until(`a beat of ${path}`, () => count)
}

// presence.js alone, on a page that has none of its own.
async function startAlone(person) {
  person.still()
  const beat = beatOf(person.page, '/login')
  await person.page.goto(`${PAGE}/login`)
  await person.page.evaluate(async () => {
    const { startPresence } = await import('/presence.js')
    window.told = []
    window.presence = startPresence({
      headers: async () => ({ apikey: 'public' }),
      onStatus: (status) => window.told.push(status),
    })
  })
  await until('active', () => person.page.evaluate(() => window.presence.status === 'active'))
  await beat()
}

test('who has left does not beat any more', async () => {
  const ana = await Person.sit()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await startAlone(ana)
  await page.evaluate(() => (window.presence.stop(), window.presence.beat()))
  await changesAre(ana.user, ['active started', 'inactive released'])
})

test('the goodbye has the headers of the last call', async () => {
  const ana = await Person.sit()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await startAlone(ana)
  const [goodbye] = await Promise.all([
    page.waitForRequest('**/rpc/release_session_by_token'),
    page.evaluate(() => window.presence.stop()),
  ])
  assert.equal(goodbye.headers().apikey, 'public')
})

test('a logout that is asked for twice is one', async () => {
  const ana = await Person.sit()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await startAlone(ana)
  await page.evaluate(() => Promise.all([window.presence.logout(), window.presence.logout()]))
  await page.evaluate(() => window.presence.logout())
  assert.equal(await page.evaluate(() => window.presence.status), 'ended')
})

test('a clock that is set back stops nothing', async () => {
  const ana = await Person.sit()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await setClock(page, -3_600_000)
  await untilHeardAfter(ana.user, 3)
})

test('what happened before a sleep is not taken for somebody who is there', async () => {
  const ana = await Person.sit()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await startAlone(ana)
  const last = () => page.evaluate(() => window.told.at(-1))
  await ana.context.setOffline(true)
  await page.mouse.move(50, 60)
  await until('offline', async () => (await last()) === 'offline')
  await setClock(page, 8 * 3_600_000)
  await ana.context.setOffline(false)
  await until('a decision', async () => (await last()) !== 'offline')
  assert.equal(await last(), 'quiet')
})

test('the hook starts a session, tells its status, and leaves when unmounted', async () => {
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
  const ana = await Person.sit()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await page.route('**/react', (route) =>
    route.fulfill({ contentType: 'text/html', body: '<div id=root></div><script type=module src=/react.js></script>' }),
  )
  await page.route('**/react.js', (route) => route.fulfill({ contentType: 'text/javascript', body: built.outputFiles[0].text }))
  ana.still()
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
  await until('the end is told', async () => (await changesOf(ana.user)).at(-1) === 'inactive ended')
})

test('the types are those of the module', () => {
  const dir = application(`
    import { hasLoggedIn, startPresence, type Presence, type Status } from './presence.js'
    import { useSessionHeartbeat } from './useSessionHeartbeat'
    const presence: Presence = startPresence({ mode: 'connection', headers: async () => ({ Authorization: 'Bearer …' }) })
    hasLoggedIn()
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
