// Runs the tests, or those with a part of their name as argument. Ends with one line:
// how many passed, how many failed.

import assert from 'node:assert/strict'
import { setTimeout } from 'node:timers/promises'
import { close, discard, keepShots } from './stage.mjs'
import { mine, tests, withBelongings } from './test.mjs'
import './dots.mjs'
import './page.mjs'
import './trouble.mjs'
import './modules.mjs'

const AT_ONCE = 3
// When a test is given up that waits for something that has no end of its own.
const DEADLINE = 300_000

const [part = ''] = process.argv.slice(2)
const chosen = tests.filter(({ name }) => name.includes(part))
let passed = 0
let failed = 0

const runOne = ({ name, run }) =>
  withBelongings(async () => {
    const begun = Date.now()
    try {
      await Promise.race([run(), setTimeout(DEADLINE).then(() => assert.fail('no end in sight'))])
      passed++
      const figures = mine().figures.map((text) => `: ${text}`)
      console.log(`ok      ${name}${figures.join('')} (${((Date.now() - begun) / 1000).toFixed(1)} s)`)
    } catch (error) {
      failed++
      console.log(`FAILED  ${name}\n${error.stack}`)
      await keepShots(name)
    }
    await discard()
  })

async function runAll(queue) {
  for (let next; (next = queue.shift()); ) await runOne(next)
}

const together = chosen.filter(({ isAlone }) => !isAlone)
await Promise.all(Array.from({ length: AT_ONCE }, () => runAll(together)))
await runAll(chosen.filter(({ isAlone }) => isAlone))
await close()
console.log(`browser: ${passed} passed, ${failed} failed`)
process.exit(failed || !passed ? 1 : 0)
