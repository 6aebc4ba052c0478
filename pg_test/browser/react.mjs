// The hooks of clients/js.

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { application, bundle, serve } from './application.mjs'
import { beatOf, changesOf, newUser, PAGE, Person, signedIn, sql, visit } from './fixtures.mjs'
import { test, until } from './framework.mjs'

const textOf = (page, selector) => page.locator(selector).textContent().catch(() => null)

test('useSession keeps a session while it is mounted, once also in StrictMode, and its status is right after the end', async () => {
  const dir = await application(`
    import { StrictMode, useState } from 'react'
    import { createRoot } from 'react-dom/client'
    import { useSession } from 'pg-presence/react'
    function Layout({ identity }) {
      const { status, reason, end } = useSession({ identity, onEnded: () => document.title = 'ended' })
      return <><output>{status} {reason}</output><button onClick={end}>End</button></>
    }
    function Application() {
      const [isShown, show] = useState(true)
      const [identity, setIdentity] = useState('Ana')
      return <>
        {isShown && <Layout identity={identity} />}
        <button onClick={() => show(!isShown)}>Toggle</button>
        <button onClick={() => setIdentity(identity ? null : 'Ana')}>Sign in or out</button>
      </>
    }
    createRoot(document.getElementById('root')!).render(<StrictMode><Application /></StrictMode>)`)
  const ana = await signedIn()
  const { page } = ana
  await page.goto(`${PAGE}/login`)
  await page.evaluate(() => localStorage.removeItem('pg_presence'))
  await serve(page, dir)
  const calls = []
  page.on('request', (request) => request.url().includes('/rpc/') && calls.push(request.url().split('/').at(-1)))
  const beat = beatOf(page, '/react')
  await page.goto(`${PAGE}/react`)
  await until('live', async () => (await textOf(page, 'output')) === 'live ')
  assert.deepEqual(calls.filter((name) => name !== 'heartbeat'), ['start_session'])
  await page.mouse.move(60, 60)
  await beat()
  await page.getByRole('button', { name: 'Toggle' }).click()
  await until('released', () => calls.includes('release_session_by_token'))
  await page.getByRole('button', { name: 'Toggle' }).click()
  await until('live again', async () => (await textOf(page, 'output')) === 'live ')
  // Signed out by the application: the status is not that of before.
  await page.getByRole('button', { name: 'Sign in or out' }).click()
  assert.equal(await textOf(page, 'output'), 'ended ')
  await page.getByRole('button', { name: 'Sign in or out' }).click()
  await until('live once more', async () => (await textOf(page, 'output')) === 'live ')
  await page.getByRole('button', { name: 'End' }).click()
  await until('ended', async () => (await textOf(page, 'output')) === 'ended ended')
  assert.equal(await page.title(), 'ended')
  // The session of the page that she has left may be the last one.
  await until('the end is written', async () => (await changesOf(ana.user)).at(-1).startsWith('inactive'))
})

test('useSession sends the headers of the latest render', async () => {
  const dir = await application(`
    import { useState } from 'react'
    import { createRoot } from 'react-dom/client'
    import { useSession } from 'pg-presence/react'
    function Application() {
      const [token, setToken] = useState('first')
      const { status, heartbeat } = useSession({ identity: 'Ana', headers: { Authorization: token } })
      return <>
        <output>{status}</output>
        <button onClick={() => setToken('second')}>Refresh</button>
        <button onClick={heartbeat}>Beat</button>
      </>
    }
    createRoot(document.getElementById('root')!).render(<Application />)`)
  const ana = await signedIn()
  const { page } = ana
  await serve(page, dir)
  await page.goto(`${PAGE}/react`)
  await until('live', async () => (await textOf(page, 'output')) === 'live')
  await page.getByRole('button', { name: 'Refresh' }).click()
  const isSecond = (request) => request.url().endsWith('/rpc/heartbeat') && request.headers().authorization === 'second'
  await Promise.all([page.waitForRequest(isSecond), page.getByRole('button', { name: 'Beat' }).click()])
})

test('useSession declares a status, takes it back, and hides the user', async () => {
  const dir = await application(`
    import { useState } from 'react'
    import { createRoot } from 'react-dom/client'
    import { useSession } from 'pg-presence/react'
    function Application() {
      const { status, setStatus, clearStatus, setInvisible, ownPresence } = useSession({ identity: 'Ana', mode: 'idle' })
      const [result, setResult] = useState<unknown>()
      return <>
        <output>{status} {String(result)}</output>
        <button onClick={async () => setResult((await setStatus({ status: 'busy', text: 'Writing' }))?.status_text)}>Busy</button>
        <button onClick={async () => setResult(await clearStatus())}>Clear</button>
        <button onClick={async () => { await setInvisible(true); setResult((await ownPresence())?.is_invisible && 'hidden') }}>Hide</button>
      </>
    }
    createRoot(document.getElementById('root')!).render(<Application />)`)
  const ana = await signedIn()
  const { page } = ana
  await serve(page, dir)
  await page.goto(`${PAGE}/react`)
  const shows = (text) => until(text, async () => (await textOf(page, 'output')) === text)
  await shows('live undefined')
  await page.getByRole('button', { name: 'Busy' }).click()
  await shows('live Writing')
  const declared = () => sql('SELECT status FROM presence.declared_statuses WHERE user_id = $1', [ana.user.id])
  assert.deepEqual(await declared(), [{ status: 'busy' }])
  await page.getByRole('button', { name: 'Clear' }).click()
  await shows('live true')
  assert.deepEqual(await declared(), [])
  await page.getByRole('button', { name: 'Hide' }).click()
  await shows('live hidden')
  assert.deepEqual(await declared(), [{ status: 'invisible' }])
})

test('usePresence shows who is there, and all components share one stream', async () => {
  const [ben, cleo] = [await newUser(), await newUser()]
  const dir = await application(`
    import { StrictMode } from 'react'
    import { createRoot } from 'react-dom/client'
    import { usePresence } from 'pg-presence/react'
    function Dot({ id }) {
      const { users, status } = usePresence([id], { url: '/api/events' })
      return <output id={'u' + id}>{status} {String(users.get(id)?.is_online)}</output>
    }
    createRoot(document.getElementById('root')!).render(
      <StrictMode><Dot id="${ben.id}" /><Dot id="${cleo.id}" /></StrictMode>)`)
  const ana = await Person.create()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await serve(page, dir)
  // Not the requests by which a watcher asks while a stream is late.
  const streams = new Set()
  let most = 0
  page.on('request', (request) => {
    const { accept, referer } = request.headers()
    if (accept !== 'text/event-stream' || !referer?.endsWith('/react')) return
    streams.add(request)
    most = Math.max(most, streams.size)
  })
  for (const end of ['requestfinished', 'requestfailed']) page.on(end, (request) => streams.delete(request))
  await page.goto(`${PAGE}/react`)
  const shows = (user, text) => until(`${user.name}: ${text}`, async () => (await textOf(page, `#u${user.id}`)) === text)
  await shows(ben, 'live false')
  await shows(cleo, 'live false')
  await visit(ben)
  await shows(ben, 'live true')
  assert.equal(await textOf(page, `#u${cleo.id}`), 'live false')
  assert.equal(most, 1, 'streams at once')
  await sql('SELECT presence.end_user_sessions($1)', [ben.id])
  await shows(ben, 'live false')
})

test('the hooks render on a server', async () => {
  const dir = await application(`
    import { renderToString } from 'react-dom/server'
    import { usePresence, useSession } from 'pg-presence/react'
    function Page({ identity }) {
      const { status } = useSession({ identity })
      return <p>{status + ' ' + usePresence(['1']).status}</p>
    }
    export const html = [renderToString(<Page identity="Ana" />), renderToString(<Page identity={null} />)]`)
  writeFileSync(`${dir}/server.mjs`, await bundle(dir, { platform: 'node', external: ['react', 'react-dom'] }))
  const { html } = await import(`${dir}/server.mjs`)
  assert.deepEqual(html, ['<p>starting connecting</p>', '<p>ended connecting</p>'])
})
