// Runs all tests, or those whose names contain one of the arguments. The last line has the numbers of passed and failed tests.

import assert from 'node:assert/strict'
import { setTimeout } from 'node:timers/promises'
import { close, cleanUp, takeScreenshots } from './fixtures.mjs'
import { currentTest, PATIENCE, tests, withTestState } from './framework.mjs'
import './status.mjs'
import './page.mjs'
import './declared.mjs'
import './idle.mjs'
import './invisible.mjs'
import './outages.mjs'
import './package.mjs'
import './react.mjs'
import './requests.mjs'
import './hostile.mjs'
import './appearance.mjs'
import './firefox.mjs'
import './webkit.mjs'
import './scale.mjs'

const CONCURRENCY = 3
// Fails a test that waits for something without a deadline of its own.
const DEADLINE = PATIENCE * 3

const parts = process.argv.slice(2)
const chosen = tests.filter(({ name }) => !parts.length || parts.some((part) => name.includes(part)))
let passed = 0
let failed = 0

const runOne = ({ name, run }) =>
  withTestState(async () => {
    const begun = Date.now()
    try {
      await Promise.race([run(), setTimeout(DEADLINE).then(() => assert.fail('timed out'))])
      passed++
      const reports = currentTest().reports.map((text) => `: ${text}`)
      console.log(`ok      ${name}${reports.join('')} (${((Date.now() - begun) / 1000).toFixed(1)} s)`)
    } catch (error) {
      failed++
      console.log(`FAILED  ${name}\n${error.stack}`)
      await takeScreenshots(name)
    }
    await cleanUp()
  })

async function runAll(queue) {
  for (let next; (next = queue.shift()); ) await runOne(next)
}

const concurrent = chosen.filter(({ isAlone }) => !isAlone)
await Promise.all(Array.from({ length: CONCURRENCY }, () => runAll(concurrent)))
// In a browser that has not shown hundreds of pages.
await close()
await runAll(chosen.filter(({ isAlone }) => isAlone))
await close()
console.log(`browser: ${passed} passed, ${failed} failed`)
process.exit(failed || !passed ? 1 : 0)
