// The rules of axe.

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { until } from './framework.mjs'

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

// Returns what axe finds wrong with a page, by all rules or by one.
export async function faultsOf(page, rule) {
  // Colours that are changing are no colours to check.
  await until('no animation', () => page.evaluate(() => !document.getAnimations().length))
  await page.evaluate(axe)
  const { violations } = await page.evaluate((rule) => window.axe.run(rule ? { runOnly: [rule] } : {}), rule)
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`)
}
