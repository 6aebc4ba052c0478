// A browser behind a WebDriver, as https://www.w3.org/TR/webdriver2 has it, on a display of its own.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { currentTest, PATIENCE, until } from './framework.mjs'

const ELEMENT = 'element-6066-11e4-a52e-4f735466cecf' // the key of an element's ID

// Starts a program that ends with the test.
async function start(program, args, options) {
  const child = spawn(program, args, options)
  await once(child, 'spawn')
  currentTest().cleanups.unshift(async () => {
    if (child.exitCode === null && child.kill()) await once(child, 'exit')
  })
  return child
}

async function startDisplay() {
  const server = await start('Xvfb', ['-displayfd', '3', '-nolisten', 'tcp'], { stdio: ['ignore', 'ignore', 'ignore', 'pipe'] })
  const [number] = await once(server.stdio[3], 'data')
  return `:${String(number).trim()}`
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  await new Promise((resolve) => server.close(resolve))
  return port
}

// Returns a function that opens a page in a window of its own.
export async function startWebDriver(program, env) {
  const port = await freePort()
  const display = { DISPLAY: await startDisplay() }
  await start(program, [`--port=${port}`], { stdio: 'ignore', env: { ...process.env, ...env, ...display } })
  const ask = async (method, path, body) => {
    const answer = await fetch(`http://127.0.0.1:${port}${path}`, { method, body: body && JSON.stringify(body) })
    const { value } = await answer.json()
    if (!answer.ok) throw new Error(`${path}: ${value.error}: ${value.message}`)
    return value
  }
  await until(program, () => ask('GET', '/status').catch(() => null))
  const { sessionId } = await ask('POST', '/session', { capabilities: {} })
  const session = (method, path, body) => ask(method, `/session/${sessionId}${path}`, body)
  currentTest().cleanups.unshift(() => session('DELETE', '').catch(() => {}))
  await session('POST', '/timeouts', { script: PATIENCE, pageLoad: PATIENCE })

  return async (url) => {
    const { handle } = await session('POST', '/window/new', { type: 'window' })
    const inPage = async (method, path, body) => {
      await session('POST', '/window', { handle })
      return session(method, path, body)
    }
    const page = {
      goto: (url) => inPage('POST', '/url', { url }),
      goBack: () => inPage('POST', '/back', {}),
      async click(selector) {
        const element = await inPage('POST', '/element', { using: 'css selector', value: selector })
        await inPage('POST', `/element/${element[ELEMENT]}/click`, {})
      },
      // Returns what a function returns in the page, also if it returns a promise.
      evaluate: (run, ...args) => inPage('POST', '/execute/sync', { script: `return (${run})(...arguments)`, args }),
      waitFor: (what, run, ...args) => until(what, () => page.evaluate(run, ...args)),
    }
    await page.goto(url)
    return page
  }
}
