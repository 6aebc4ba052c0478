// presence.js and the hook, as other applications use them.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { cpSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { changesAre, changesOf, newUser, PAGE, Person, untilHeardAfter, WEB } from './stage.mjs'
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
  await page.goto(`${PAGE}/react`)
  const status = page.locator('output')
  await until('active', async () => (await status.textContent()) === 'active')
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
    import { startPresence, type Presence, type Status } from './presence.js'
    import { useSessionHeartbeat } from './useSessionHeartbeat'
    const presence: Presence = startPresence({ mode: 'connection', headers: async () => ({ Authorization: 'Bearer …' }) })
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
