// What a test is written with.

import { AsyncLocalStorage } from 'node:async_hooks'

export const tests = []

// As long as the slowest machine may take for anything.
export const PATIENCE = 120_000

// Tests mostly wait, so they run beside each other; those of `alone` do what others would notice.
export function test(name, run) {
  tests.push({ name, run, isAlone: false })
}
export function alone(name, run) {
  tests.push({ name, run, isAlone: true })
}

// What belongs to the test that asks: its people, what is to be undone, what it has measured.
const belongings = new AsyncLocalStorage()
export const mine = () => belongings.getStore()
export const withBelongings = (run) => belongings.run({ people: [], undo: [], figures: [] }, run)

// Prints what was measured, which nothing is asserted about.
export const figure = (text) => mine().figures.push(text)

// Returns what `attempt` finds; fails with `what` when that is nothing for two minutes.
export async function until(what, attempt) {
  const deadline = Date.now() + PATIENCE
  for (;;) {
    const found = await attempt()
    if (found) return found
    if (Date.now() > deadline) throw new Error(`waited in vain: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}
