// A small test framework: registration, state of a test, waiting.

import { AsyncLocalStorage } from 'node:async_hooks'

export const tests = []

// The deadline of every wait, in milliseconds; long enough for slow machines.
export const PATIENCE = Math.max(120, Number(process.env.PATIENCE ?? 0)) * 1000

// Tests mostly wait, so they run concurrently, except those registered with `alone`, which would disturb others.
export function test(name, run) {
  tests.push({ name, run, isAlone: false })
}
export function alone(name, run) {
  tests.push({ name, run, isAlone: true })
}

// The state of the running test: its people, its cleanups, its reports.
const testState = new AsyncLocalStorage()
export const currentTest = () => testState.getStore()
export const withTestState = (run) => testState.run({ people: [], cleanups: [], reports: [] }, run)

// Prints a measurement that is not asserted.
export const report = (text) => currentTest().reports.push(text)

// Returns the first truthy result of `attempt`; fails with `what` if there is none by then.
export async function until(what, attempt) {
  const deadline = Date.now() + PATIENCE
  for (;;) {
    const found = await attempt()
    if (found) return found
    if (Date.now() > deadline) throw new Error(`timed out waiting: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}
