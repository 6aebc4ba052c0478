// Many users in one tab.

import assert from 'node:assert/strict'
import { Person, newUser, sql, visit } from './fixtures.mjs'
import { alone, currentTest, report, until } from './framework.mjs'

const USERS = 10_000

alone('ten thousand users: the tab is idle when nothing changes, shows each change, and reaches each row', async () => {
  await sql("INSERT INTO app.users (name, title) SELECT 'Crowd ' || lpad(n::text, 5, '0'), 'Crowd' FROM generate_series(1, $1) n", [USERS])
  currentTest().cleanups.push(() => sql("DELETE FROM app.users WHERE title = 'Crowd'"))
  const ana = await Person.create()
  const page = await ana.signIn(await newUser('Aaron'))
  await ana.sees(ana.user, 'Active')
  await until('everybody', async () => Number(await page.locator('#total').textContent()) >= USERS)
  await ana.stopMoving()
  await until('no animation', () => page.evaluate(() => !document.getAnimations().length))
  // Only some have a row.
  const rows = page.locator('tbody tr')
  assert.ok((await rows.count()) <= 400, `${await rows.count()} rows`)

  const browser = await ana.context.newCDPSession(page)
  await browser.send('Performance.enable')
  const metrics = async () => {
    const { metrics } = await browser.send('Performance.getMetrics')
    return Object.fromEntries(metrics.map(({ name, value }) => [name, value]))
  }
  // Over more than one time that the server reads everybody again, which is every 30 seconds.
  const before = await metrics()
  await page.waitForTimeout(65_000)
  const after = await metrics()
  const seconds = after.Timestamp - before.Timestamp
  const share = (name) => `${(((after[name] - before[name]) / seconds) * 100).toFixed(1)} %`
  report(`idle: ${share('TaskDuration')} of a core (script ${share('ScriptDuration')}, layout ${share('LayoutDuration')})`)
  report(`${(after.JSHeapUsedSize / 1e6).toFixed(0)} MB, ${after.Nodes} nodes`)

  // A change of somebody without a row is counted.
  const [last] = await sql("SELECT id, name FROM app.users WHERE title = 'Crowd' ORDER BY name DESC LIMIT 1")
  const online = async () => Number(await page.locator('#online').textContent())
  const countBefore = await online()
  await visit(last)
  await until('one more', async () => (await online()) > countBefore)
  // Whoever is searched for has a row, and so has whoever is scrolled to.
  await page.getByRole('searchbox').fill(last.name)
  await ana.sees(last, 'Active')
  await page.getByRole('searchbox').fill('Crowd')
  const target = page.locator('tr', { hasText: 'Crowd 00450' })
  await until('the row', async () => {
    await page.evaluate(() => scrollTo(0, document.body.scrollHeight))
    return target.count()
  })
})
