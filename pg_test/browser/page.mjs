// The page around the dots: added, renamed and removed users, the filter, the keyboard, small and dark screens.

import assert from 'node:assert/strict'
import { announcementsOf, newUser, Person, sql, SHOTS, visit } from './fixtures.mjs'
import { alone, test, until } from './framework.mjs'

test('users added, renamed and removed appear without a reload', async () => {
  const ana = await Person.create()
  await ana.signIn(await newUser())
  const ben = await newUser('Ben the First')
  await ana.sees(ben, 'Inactive')
  const row = ana.page.locator(`tr[data-user="${ben.id}"]`)
  assert.equal(await row.locator('time').textContent(), 'never')
  await sql("UPDATE app.users SET name = 'Ben the Second' WHERE id = $1", [ben.id])
  await until('the new name', async () => (await row.locator('.name').textContent()) === 'Ben the Second')
  await sql('DELETE FROM app.users WHERE id = $1', [ben.id])
  await until('the row is gone', async () => (await row.count()) === 0)
})

test('a change of one user is sent as that user, not as everybody', async () => {
  const ana = await Person.create()
  await ana.signIn(await newUser())
  const ben = await newUser('Ben the First')
  await ana.sees(ben, 'Inactive')
  await ana.page.evaluate(
    () =>
      new Promise((resolve) => {
        window.events = []
        const stream = new EventSource('/api/events')
        stream.addEventListener('user', ({ data }) => window.events.push(JSON.parse(data).name))
        stream.addEventListener('users', resolve)
      }),
  )
  // A user who is deleted at the same time makes it everybody.
  const shown = ana.page.locator(`tr[data-user="${ben.id}"] .name`)
  let count = 0
  await until('a new name alone', async () => {
    const name = `Ben renamed ${++count}`
    await sql('UPDATE app.users SET name = $2 WHERE id = $1', [ben.id, name])
    await until('the new name', async () => (await shown.textContent()) === name)
    return ana.page.evaluate(() => window.events.some((name) => name.startsWith('Ben renamed')))
  })
})

test('a name is shown as text, whatever it contains', async () => {
  const ana = await Person.create()
  await ana.signIn(await newUser())
  const name = '<img src=x onerror="window.hacked = 1">'
  const eve = await newUser(name)
  await ana.sees(eve, 'Inactive')
  assert.equal(await ana.page.locator(`tr[data-user="${eve.id}"] .name`).textContent(), name)
  assert.equal(await ana.page.evaluate(() => window.hacked), undefined)
})

test('the time of last seen keeps counting', async () => {
  const ana = await Person.create()
  await ana.signIn(await newUser())
  const ben = await newUser()
  await visit(ben)
  await ana.sees(ben, 'Active')
  await sql('SELECT presence.end_user_sessions($1)', [ben.id])
  const time = ana.page.locator(`tr[data-user="${ben.id}"] time`)
  // Those out of view wait until they are in view.
  await time.scrollIntoViewIfNeeded()
  let first
  await until('more seconds', async () => {
    const text = await time.textContent()
    if (text.includes('minute')) {
      // Too late to see seconds: again, with another visit.
      first = undefined
      await sql('SELECT presence.end_session(session_id) FROM presence.start_session(user_id => $1)', [ben.id])
      await until('that visit', async () => !(await time.textContent()).includes('minute'))
      return false
    }
    const seconds = Number(text.match(/^(\d+) seconds ago$/)?.[1] ?? 0)
    if (seconds) first ??= seconds
    return seconds > first
  })
})

test('the filter and the count work with a keyboard alone', async () => {
  const ana = await Person.create()
  const page = await ana.signIn(await newUser('Zora Filter'))
  await ana.sees(ana.user, 'Active')
  await until('the count', async () => {
    const [{ total }] = await sql('SELECT count(*)::int AS total FROM app.users')
    return (await page.locator('#total').textContent()) === String(total)
  })
  const filter = page.getByRole('searchbox', { name: 'Filter by name or title' })
  await filter.focus()
  await page.keyboard.type('zora f')
  const shown = page.getByRole('rowheader')
  await until('one row', async () => (await shown.count()) === 1)
  await page.keyboard.press('Tab')
  await page.keyboard.press('ArrowRight') // Active
  assert.equal(await shown.count(), 1)
  await page.keyboard.press('ArrowRight') // Inactive
  await until('no row', async () => (await shown.count()) === 0)
  await page.getByText('Nobody matches the filter.').waitFor()
})

alone('a screen reader finds a table with headings, and changes are announced', async () => {
  const ana = await Person.create()
  const page = await ana.signIn(await newUser())
  const ben = await newUser('Ben Spoken')
  const table = page.getByRole('table', { name: 'Users and whether they are online' })
  assert.deepEqual(await table.getByRole('columnheader').allTextContents(), ['Name', 'Status', 'Last seen', 'Sessions'])
  await table.getByRole('row', { name: /Ben Spoken.*Inactive never 0/ }).waitFor()
  // Many changes at once are announced as their number, so wait for those of earlier tests.
  await sql('SELECT presence.end_user_sessions(user_id) FROM presence.online_users() WHERE user_id <> $1', [ana.user.id])
  await until('nobody else is online', async () => (await page.locator('#online').textContent()) === '1')
  await page.reload()
  await table.getByRole('row', { name: /Ben Spoken/ }).waitFor()
  const announced = await announcementsOf(page)
  await visit(ben)
  // The name is isolated, so that it cannot turn the sentence around.
  await until('the announcement', async () => (await announced()).some((text) => text.includes('\u2068Ben Spoken\u2069 is active')))
})

test('the page fits a phone, and follows a dark colour scheme', async () => {
  const ana = await Person.create({ viewport: { width: 360, height: 640 }, colorScheme: 'dark' })
  const page = await ana.signIn(await newUser('Alexandrina Featherstonehaugh'))
  await ana.sees(ana.user, 'Active')
  const [width, background] = await page.evaluate(() => [
    document.documentElement.scrollWidth,
    getComputedStyle(document.body).backgroundColor,
  ])
  assert.ok(width <= 360, `${width} pixels wide`)
  assert.equal(background, 'rgb(14, 17, 22)')
})

// A screenshot, for the README.
alone('the screenshot of the page', async () => {
  const ana = await Person.create({ viewport: { width: 1000, height: 760 } })
  await sql("DELETE FROM app.users WHERE id::text NOT LIKE '00000000-%'")
  const user = (number) => ({ id: `00000000-0000-4000-8000-0000000000${number}` })
  for (const number of ['01', '01', '02', '04', '08', '08', '11', '12']) await visit(user(number))
  const away = [['03', '4 minutes'], ['05', '26 minutes'], ['06', '3 hours'], ['09', '1 day'], ['10', '5 days']]
  for (const [number, time] of away) {
    await sql(
      `INSERT INTO presence.user_sessions (user_id, is_active, last_activity, ended_at)
       VALUES ($1, false, now() - $2::interval, now() - $2::interval)`,
      [user(number).id, time],
    )
  }
  const declared = [['02', 'busy', 'In a meeting'], ['04', 'away', 'Lunch'], ['05', null, 'Back on Monday']]
  for (const [number, status, text] of declared) {
    await sql('SELECT presence.set_status($1, $2, user_id => $3)', [status, text, user(number).id])
  }
  await sql('UPDATE app.users SET title = title') // old sessions are no change: this makes the page read all users
  const grace = { ...user('07'), name: 'Grace Nakamura' }
  const page = await ana.signIn(grace)
  await ana.sees(grace, 'Active')
  await until('every user is shown', async () => (await page.getByRole('rowheader').count()) === 12)
  await page.waitForTimeout(2500) // for the highlight of changed rows to fade
  await page.screenshot({ path: `${SHOTS}/users.png` })
})
