// Users who appear offline: to everybody but themselves.

import assert from 'node:assert/strict'
import { faultsOf } from './axe.mjs'
import { newUser, PAGE, Person, SHOTS, sql, withoutSession } from './fixtures.mjs'
import { test, until } from './framework.mjs'
import { menu, openMenu } from './menu.mjs'

const invisible = (page) => page.getByLabel('Appear offline to everybody')

// Waits until the menu of a page says that its user is invisible, or not.
async function says(page, word) {
  await until(`the menu says ${word}`, async () => (await menu(page).locator('.word').textContent()) === word)
}

test('who appears offline is told so alone, in every tab, and shows again without a reload', async () => {
  const [ana, ben] = [await Person.create(), await Person.create()]
  const page = await ana.signIn(await newUser())
  await ben.signIn(await newUser())
  await ben.sees(ana.user, 'Active')
  const other = await ana.open()
  await openMenu(page)
  await invisible(page).check()
  await ben.sees(ana.user, 'Inactive')
  // In the list, as everybody sees it.
  await ana.sees(ana.user, 'Inactive')
  for (const tab of [page, other]) {
    await says(tab, 'Invisible')
    assert.equal(await tab.locator('#own-shown').textContent(), 'You are invisible. To everybody else you are offline.')
  }
  await page.reload()
  await says(page, 'Invisible')
  await openMenu(page)
  assert.equal(await invisible(page).isChecked(), true)
  await invisible(page).uncheck()
  await ben.sees(ana.user, 'Active')
  for (const tab of [page, other]) await says(tab, 'Active')
})

test('a status that is set while invisible shows to nobody until the user shows again', async () => {
  const [ana, ben] = [await Person.create(), await Person.create()]
  const page = await ana.signIn(await newUser())
  await ben.signIn(await newUser())
  await ben.sees(ana.user, 'Active')
  await openMenu(page)
  await invisible(page).check()
  await ben.sees(ana.user, 'Inactive')
  await openMenu(page)
  await page.getByText('Busy', { exact: true }).first().click()
  await page.getByRole('button', { name: 'Set status' }).click()
  await until('the status', async () => (await sql("SELECT FROM presence.declared_statuses WHERE user_id = $1 AND status = 'busy'", [ana.user.id])).length === 1)
  await ben.sees(ana.user, 'Inactive')
  await says(page, 'Invisible')
  await openMenu(page)
  assert.equal(await invisible(page).isChecked(), true)
  await invisible(page).uncheck()
  await ben.sees(ana.user, 'Busy')
})

test('the package hides the user, tells what it is, and shows it again', async () => {
  const ana = await withoutSession()
  const { page } = ana
  await page.evaluate(async () => {
    const { keepSession } = await import('/pg-presence/index.js')
    window.session = keepSession()
  })
  await until('live', () => page.evaluate(() => window.session.status === 'live'))
  const own = () =>
    page.evaluate(async () => {
      const { status, shown, is_invisible, session_count } = await window.session.ownPresence()
      return [status, shown, is_invisible, session_count]
    })
  assert.deepEqual(await own(), ['active', 'active', false, 1])
  assert.equal(await page.evaluate(() => window.session.setInvisible(true, { expiresIn: 90_000 })), null)
  assert.deepEqual(await own(), ['active', 'inactive', true, 1])
  const expiry = 'SELECT extract(epoch FROM expires_at - set_at) AS seconds FROM presence.declared_statuses WHERE user_id = $1'
  assert.equal(Number((await sql(expiry, [ana.user.id]))[0].seconds), 90)
  await page.evaluate(() => window.session.setInvisible(false))
  assert.deepEqual(await own(), ['active', 'active', false, 1])
})

test('users hide themselves only, and only while they are signed in', async () => {
  const [ana, ben] = [await Person.create(), await newUser()]
  await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  const post = async (name, data, request = ana.context.request) => (await request.post(`${PAGE}/rpc/${name}`, { data })).status()
  assert.equal(await post('set_invisible', { invisible: true, user_id: ben.id }), 400)
  assert.equal(await post('own_presence', { user_id: ben.id }), 400)
  const stranger = await Person.create()
  assert.equal(await post('set_invisible', { invisible: true }, stranger.context.request), 401)
  assert.equal(await post('own_presence', {}, stranger.context.request), 401)
  assert.equal((await sql('SELECT FROM presence.declared_statuses WHERE user_id = ANY ($1)', [[ana.user.id, ben.id]])).length, 0)
})

test('a server that does not let users hide says so in the menu', async () => {
  const ana = await Person.create()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await page.route('**/rpc/set_invisible', (route) =>
    route.fulfill({ status: 403, json: { message: 'users are not allowed to hide themselves' } }),
  )
  await openMenu(page)
  await invisible(page).click()
  await until('the problem', async () => /not allowed/.test(await page.locator('#own-problem').textContent()))
  assert.equal(await invisible(page).isChecked(), false)
  await says(page, 'Active')
})

for (const [name, options] of [
  ['light', {}],
  ['dark', { colorScheme: 'dark' }],
  ['narrow', { viewport: { width: 390, height: 800 } }],
]) {
  test(`axe finds no fault with the menu of somebody invisible, ${name}`, async () => {
    const ana = await Person.create(options)
    const page = await ana.signIn(await newUser('Abigail Featherstonehaugh'))
    await ana.sees(ana.user, 'Active')
    await openMenu(page)
    await invisible(page).check()
    await says(page, 'Invisible')
    await openMenu(page)
    await invisible(page).waitFor()
    assert.deepEqual(await faultsOf(page), [])
    await page.screenshot({ path: `${SHOTS}/invisible-${name}.png` })
  })
}
