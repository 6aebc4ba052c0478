// An application that has installed clients/js.

import { execFile } from 'node:child_process'
import { mkdtempSync, mkdirSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { build } from 'esbuild'
import { PACKAGE } from './fixtures.mjs'

const here = fileURLToPath(new URL('.', import.meta.url))
let archive // a promise of what npm would publish

// Runs a program, and returns what it prints. Other tests go on meanwhile.
export const run = promisify(execFile)

// Writes an application with this code to a directory where react is found, and installs the package there.
export async function application(code) {
  const npm = (dir, ...args) => run('npm', [...args, '--offline', '--no-audit', '--no-fund', '--silent'], { cwd: dir })
  archive ??= npm(here, 'pack', PACKAGE).then(({ stdout }) => `${here}${stdout.trim()}`)
  const dir = mkdtempSync(`${here}application-`)
  mkdirSync(`${dir}/node_modules`)
  writeFileSync(`${dir}/package.json`, '{"type": "module", "private": true}')
  // Without its optional peer, react, which is found further up.
  await npm(dir, 'install', '--omit=peer', await archive)
  writeFileSync(`${dir}/application.tsx`, code)
  return dir
}

// Returns the application's code for a browser.
export async function bundle(dir, options = {}) {
  const entry = { entryPoints: [`${dir}/application.tsx`], bundle: true, format: 'esm', jsx: 'automatic', write: false }
  const { outputFiles } = await build({ ...entry, ...options })
  return outputFiles[0].text
}

// Serves the application as the page `/react`.
export async function serve(page, dir) {
  const body = await bundle(dir)
  await page.route('**/react', (route) =>
    route.fulfill({ contentType: 'text/html', body: '<div id=root></div><script type=module src=/react.js></script>' }),
  )
  await page.route('**/react.js', (route) => route.fulfill({ contentType: 'text/javascript', body }))
}
