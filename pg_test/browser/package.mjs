// clients/js, as other applications use it.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { gzipSync } from 'node:zlib'
import { build, transform } from 'esbuild'
import { application, bundle, run } from './application.mjs'
import { advanceClock, expectChanges, newUser, PACKAGE, Person, untilBeatAfter, withoutSession } from './fixtures.mjs'
import { test, until } from './framework.mjs'

test('in connection mode an untouched page stays green', async () => {
  const ana = await withoutSession()
  await ana.page.evaluate(async () => {
    const { keepSession } = await import('/pg-presence/index.js')
    window.session = keepSession({ mode: 'connection' })
  })
  await untilBeatAfter(ana.user, 31)
  await expectChanges(ana.user, ['active started'])
})

// Signs a new user in whose page keeps a session for itself. There is no beat until somebody is active.
async function startAlone() {
  const person = await withoutSession()
  await person.page.evaluate(async () => {
    const { keepSession } = await import('/pg-presence/index.js')
    window.seen = []
    window.session = keepSession({
      headers: async () => ({ apikey: 'public' }),
      onStatus: (status) => window.seen.push(status),
    })
  })
  await until('live', () => person.page.evaluate(() => window.session.status === 'live'))
  return person
}

test('a released session does not beat any more', async () => {
  const ana = await startAlone()
  const { page } = ana
  await page.evaluate(() => (window.session.release(), window.session.heartbeat()))
  await expectChanges(ana.user, ['active started', 'inactive released'])
})

test('the release has the headers of the last call', async () => {
  const ana = await startAlone()
  const { page } = ana
  const [release] = await Promise.all([
    page.waitForRequest('**/rpc/release_session_by_token'),
    page.evaluate(() => window.session.release()),
  ])
  assert.equal(release.headers().apikey, 'public')
  // Where PostgREST exposes several schemas, it finds the functions by this one.
  assert.equal(release.headers()['content-profile'], 'presence')
})

test('a session that is ended twice at once has ended', async () => {
  const ana = await startAlone()
  const { page } = ana
  await page.evaluate(() => Promise.all([window.session.end(), window.session.end()]))
  await page.evaluate(() => window.session.end())
  assert.equal(await page.evaluate(() => window.session.status), 'ended')
})

test('a clock that is set back does not stop the beats', async () => {
  const ana = await Person.create()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await advanceClock(page, -3_600_000)
  await untilBeatAfter(ana.user, 3)
})

test('a clock that is set back while a beat is on its way does not stop them', async () => {
  const ana = await Person.create()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  let isBack = false
  await page.route('**/rpc/heartbeat', async (route) => {
    const response = await route.fetch()
    if (!isBack) await advanceClock(page, -3_600_000)
    isBack = true
    await route.fulfill({ response })
  })
  await until('set back', () => isBack)
  await untilBeatAfter(ana.user, 3)
})

test('activity before the computer slept does not count as activity after it', async () => {
  const ana = await startAlone()
  const { page } = ana
  const last = () => page.evaluate(() => window.seen.at(-1))
  await ana.context.setOffline(true)
  await page.mouse.move(50, 60)
  await until('failing', async () => (await last()) === 'failing')
  await advanceClock(page, 8 * 3_600_000)
  await ana.context.setOffline(false)
  await until('another status', async () => (await last()) !== 'failing')
  assert.equal(await last(), 'timed_out')
})

test('after a reload before the computer slept nobody is there after it', async () => {
  const { page } = await startAlone()
  await page.clock.install()
  await page.reload()
  await page.evaluate(async () => {
    const { keepSession } = await import('/pg-presence/index.js')
    window.beats = 0
    window.session = keepSession({ fetch: (url, init) => ((window.beats += url.endsWith('/heartbeat')), fetch(url, init)) })
  })
  await until('live', () => page.evaluate(() => window.session.status === 'live'))
  // As when it sleeps: what was due meanwhile is due now.
  await page.clock.fastForward('08:00:00')
  await until('the page knows', () => page.evaluate(() => window.beats || window.session.status === 'timed_out'))
  assert.equal(await page.evaluate(() => window.beats), 0)
})

test('every listener hears of a status, until it is removed, and one that throws is no fault of the network', async () => {
  const { page } = await withoutSession()
  const thrown = []
  page.on('pageerror', (error) => thrown.push(error.message))
  await page.evaluate(async () => {
    const { keepSession } = await import('/pg-presence/index.js')
    window.heard = []
    window.session = keepSession({
      onStatus() {
        throw new Error('a mistake of the application')
      },
      onError: (error) => window.heard.push(error.message),
    })
    window.session.on('status', (status) => window.heard.push(status))
    window.session.on('status', () => window.heard.push('removed'))()
  })
  await until('live', () => page.evaluate(() => window.session.status === 'live'))
  assert.deepEqual(await page.evaluate(() => window.heard), ['live'])
  await until('reported', () => thrown.length >= 2)
  assert.deepEqual([...new Set(thrown)], ['a mistake of the application'])
})

test('with everything it is smaller than 6.5 kB', async () => {
  const { outputFiles } = await build({
    stdin: {
      contents: "export * from './src/index.js'; export * from './src/react.js'",
      resolveDir: PACKAGE,
    },
    bundle: true,
    minify: true,
    format: 'esm',
    external: ['react'],
    write: false,
  })
  const size = gzipSync(outputFiles[0].contents, { level: 9 }).length
  assert.ok(size < 6500, `${size} bytes`)
})

// The first table of the README.
const browsers = readFileSync(`${PACKAGE}/README.md`, 'utf8')
  .match(/^\| browser \|[^]*?\n\n/m)[0]
  .matchAll(/^\| (?:[^|]*?)(\w+) \| (\d+(?:\.\d+)?) \|/gm)

test('it uses no syntax that the browsers of its table do not have', async () => {
  const target = [...browsers].map(([, name, version]) => `${name.toLowerCase()}${version}`)
  assert.equal(target.length, 4)
  for (const name of ['index', 'session', 'idle', 'watch', 'request', 'browser', 'event-stream', 'react']) {
    const source = readFileSync(`${PACKAGE}/src/${name}.js`, 'utf8')
    const [old, current] = await Promise.all([transform(source, { target }), transform(source, { target: 'esnext' })])
    assert.equal(old.code, current.code, name)
  }
})

test('it is installed from a path, and its types are those of the code', async () => {
  const dir = await application(`
    import { keepSession, watchPresence, type EndReason, type SessionStatus } from 'pg-presence'
    import { usePresence, useSession } from 'pg-presence/react'
    const session = keepSession({ mode: 'connection', identity: 'a login', headers: async () => ({ Authorization: 'Bearer …' }) })
    const status: SessionStatus = session.status
    session.session?.session_id.length
    const remove: () => void = session.on('ended', (reason: EndReason) => reason)
    session.call<string>('heartbeat', { session_id: '' }).then((answer) => answer.length)
    keepSession({ mode: 'idle', idleAfter: 120_000 }).clearStatus('text').then((wasValid: boolean) => wasValid)
    session.setStatus({ status: 'busy', text: null, expiresIn: '1 hour' }).then((row) => row.status_text?.length)
    session.setInvisible(true, { expiresIn: 60_000 }).then(() => session.ownPresence()).then(({ shown, is_invisible }) => is_invisible && shown === 'inactive')
    // @ts-expect-error: no such status
    session.setStatus({ status: 'invisible' })
    // @ts-expect-error: no such mode
    keepSession({ mode: 'always' })
    // @ts-expect-error: no such event
    session.on('stopped', () => {})
    const watch = watchPresence<{ id: string, is_online: boolean }>({ url: '/api/events', users: ['1'], onChange: ([change]) => change.user?.is_online })
    const isOnline: boolean | undefined = watch.users.get('1')?.is_online
    export const Component = () => {
      const session: { status: SessionStatus } = useSession({ identity: null })
      return <p>{session.status} {usePresence(['1']).users.size}</p>
    }
    export { status, remove, isOnline }`)
  const tsc = `${dir}/../node_modules/typescript/bin/tsc`
  for (const resolution of [['esnext', 'bundler'], ['node16', 'node16']]) {
    const options = `--noEmit --strict --target es2022 --jsx react-jsx --module ${resolution[0]} --moduleResolution ${resolution[1]}`
    try {
      await run(process.execPath, [tsc, ...options.split(' '), `${dir}/application.tsx`], { cwd: dir })
    } catch (error) {
      assert.fail(error.stdout)
    }
  }
  await bundle(dir)
})

test('four tabs that are due at the same time send one heartbeat for all', async () => {
  const ana = await withoutSession()
  const pages = [ana.page, await ana.open('/login'), await ana.open('/login'), await ana.open('/login')]
  const INTERVAL = 4000
  const beats = [] // when they were sent, by the browser's clock
  ana.context.on('response', (answer) => answer.url().endsWith('/rpc/heartbeat') && beats.push(answer.request().timing().startTime))
  for (const page of pages) {
    await page.evaluate(async (heartbeat_ms) => {
      const { keepSession } = await import('/pg-presence/index.js')
      // As with the default settings, where an interval takes two minutes.
      window.session = keepSession({
        mode: 'connection',
        fetch: async (...args) => {
          const response = await fetch(...args)
          if (!args[0].endsWith('start_session')) return response
          return Response.json({ ...(await response.json()), heartbeat_ms })
        },
      })
    }, INTERVAL)
  }
  // Every tab plans its next beat for the same time, apart from the spread.
  for (const page of pages) await until('live', () => page.evaluate(() => window.session.status === 'live'))
  await untilBeatAfter(ana.user, 8)
  const last = beats.length - 1
  await untilBeatAfter(ana.user, 12)
  const counted = beats.slice(last).sort((a, b) => a - b)
  const intervals = (counted.at(-1) - counted[0]) / INTERVAL
  // Each would be four without the others.
  assert.ok(counted.length - 1 < (8 / 3) * intervals, `${counted.length - 1} beats in ${intervals} intervals`)
})
