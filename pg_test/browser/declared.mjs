// What users declare: yellow and red dots, texts and emojis, and the menu for one's own.

import assert from 'node:assert/strict'
import { faultsOf } from './axe.mjs'
import { announcementsOf, newUser, PAGE, Person, SHOTS, sql, visit, withoutSession } from './fixtures.mjs'
import { test, until } from './framework.mjs'
import { menu, openMenu } from './menu.mjs'

// Declares something as a service does.
async function declare(user, { status = null, text = null, emoji = null, expiresIn = null }) {
  await sql('SELECT presence.set_status($1, $2, $3, $4::interval, user_id => $5)', [status, text, emoji, expiresIn, user.id])
}

const declaredBy = (user) => sql('SELECT * FROM presence.declared_statuses WHERE user_id = $1', [user.id])

// Waits until a page shows this text beside the name of a user.
async function showsText(page, user, text) {
  const declared = page.locator(`tr[data-user="${user.id}"] .declared`)
  await until(`${user.name}: ${text}`, async () => {
    const shown = await declared.evaluate((element) => (element.hidden ? '' : element.textContent)).catch(() => null)
    return shown === text
  })
}

const setStatus = (page) => page.getByRole('button', { name: 'Set status' })

test('a status set in one browser shows in that of another user, with a word, and so does its end', async () => {
  const [ana, ben] = [await Person.create(), await Person.create()]
  const page = await ana.signIn(await newUser())
  await ben.signIn(await newUser())
  await ben.sees(ana.user, 'Active')
  await openMenu(page)
  await page.getByText('Busy', { exact: true }).first().click()
  await page.getByLabel('Emoji').fill('📅')
  await page.getByLabel('What are you doing?').fill('In a meeting')
  await page.getByLabel('For how long?').selectOption('1 hour')
  await setStatus(page).click()
  await ben.sees(ana.user, 'Busy')
  await showsText(ben.page, ana.user, '📅In a meeting')
  await ana.sees(ana.user, 'Busy')
  const [{ status, source, hours }] = await sql(
    `SELECT status, source, extract(epoch FROM expires_at - set_at) / 3600 AS hours
     FROM presence.declared_statuses WHERE user_id = $1`,
    [ana.user.id],
  )
  assert.deepEqual([status, source, Number(hours)], ['busy', 'manual', 1])
  await openMenu(page)
  assert.match(await page.locator('#own-shown').textContent(), /^You are shown as busy, \u2068📅\u2069 \u2068In a meeting\u2069 until .+\.$/)
  await page.getByRole('button', { name: 'Clear status' }).click()
  await ben.sees(ana.user, 'Active')
  await showsText(ben.page, ana.user, '')
  assert.deepEqual(await declaredBy(ana.user), [])
})

test('the menu works with a keyboard alone, and gives the focus back', async () => {
  const ana = await Person.create()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  const { keyboard } = page
  await page.getByRole('button', { name: 'Log out' }).focus()
  await keyboard.press('Shift+Tab')
  assert.equal(await page.evaluate(() => document.activeElement.id), 'own-summary')
  await keyboard.press('Enter')
  await keyboard.press('Escape')
  assert.equal(await setStatus(page).isVisible(), false)
  assert.equal(await page.evaluate(() => document.activeElement.id), 'own-summary')
  await keyboard.press('Space')
  await setStatus(page).waitFor()
  await keyboard.press('Tab')
  await keyboard.press('ArrowRight') // Busy
  await keyboard.press('ArrowRight') // Away
  await keyboard.press('Tab')
  await keyboard.press('Tab')
  await keyboard.type('Walking the dog')
  await keyboard.press('Tab')
  await keyboard.press('ArrowUp') // Today
  await keyboard.press('Tab')
  const midnight = () => page.evaluate(() => new Date().setHours(24, 0, 0, 0))
  const midnights = [await midnight()]
  await keyboard.press('Enter')
  await ana.sees(ana.user, 'Idle')
  await showsText(page, ana.user, 'Walking the dog')
  await until('the focus is back', () => page.evaluate(() => document.activeElement.id === 'own-summary'))
  assert.equal(await setStatus(page).isVisible(), false)
  const [{ expires_at }] = await declaredBy(ana.user)
  // It may have passed meanwhile.
  midnights.push(await midnight())
  assert.ok(midnights.some((midnight) => Math.abs(expires_at - midnight) < 60_000), `until ${expires_at}`)
})

test('a status that expires ends on the page without a reload', async () => {
  const [ana, ben] = [await Person.create(), await newUser()]
  const page = await ana.signIn(await newUser())
  await visit(ben)
  await ana.sees(ben, 'Active')
  // It may have expired before anybody looks.
  await page.locator(`tr[data-user="${ben.id}"]`).evaluate((row) => {
    window.shown = []
    const look = () => [row.querySelector('.status .dot').className, ...['.word', '.declared'].map((part) => row.querySelector(part).textContent)]
    new MutationObserver(() => window.shown.push(look().join())).observe(row, { childList: true, subtree: true })
  })
  await declare(ben, { status: 'busy', text: 'Back soon', expiresIn: '20 s' })
  await until('the status', () => page.evaluate(() => window.shown.includes('dot busy,Busy,Back soon')))
  await ana.sees(ben, 'Active')
  await showsText(page, ben, '')
})

test('a text alone, and one of who is offline, show and change while the page is open', async () => {
  const [ana, ben] = [await Person.create(), await newUser()]
  const page = await ana.signIn(await newUser())
  // Nothing is told of users who have never been here.
  const leave = await visit(ben)
  await ana.sees(ben, 'Active')
  leave()
  await declare(ben, { emoji: '🌴' })
  await showsText(page, ben, '🌴')
  await sql('SELECT presence.end_user_sessions($1)', [ben.id])
  await ana.sees(ben, 'Inactive')
  await declare(ben, { text: 'Back on Monday' })
  await showsText(page, ben, 'Back on Monday')
  await ana.sees(ben, 'Inactive')
})

test('a text is shown as text, whatever it contains', async () => {
  const [ana, eve] = [await Person.create(), await newUser()]
  const page = await ana.signIn(await newUser())
  await visit(eve)
  await ana.sees(eve, 'Active')
  await declare(eve, { text: '<img src=x onerror="window.hacked = 1">\u202Eevil\u2066\u001b[31m', emoji: '<b>\u202e' })
  await showsText(page, eve, '<b>\ufffd<img src=x onerror="window.hacked = 1">\ufffdevil\ufffd\ufffd[31m')
  for (const part of ['.text', '.emoji']) {
    const style = page.locator(`tr[data-user="${eve.id}"] .declared ${part}`)
    assert.equal(await style.evaluate((element) => getComputedStyle(element).unicodeBidi), 'isolate')
  }
  // The menu of whom it is of has it, too.
  await declare(ana.user, { text: '<img src=x onerror="window.hacked = 1">\u202e', emoji: '<b>' })
  await openMenu(page)
  await until('the own text', async () => (await page.locator('#own-shown').textContent()).includes('onerror="window.hacked = 1">\ufffd\u2069'))
  assert.equal(await page.evaluate(() => window.hacked), undefined)
  assert.equal(await page.locator('.declared img, .own img, .own b').count(), 0)
})

test('a screen reader hears of a declared status, and what the menu is for', async () => {
  const [ana, ben] = [await Person.create(), await newUser()]
  const page = await ana.signIn(await newUser('Ana Spoken'))
  await visit(ben)
  await ana.sees(ben, 'Active')
  const announced = await announcementsOf(page)
  await declare(ben, { status: 'busy' })
  await until('the announcement', async () => (await announced()).some((text) => /busy|users have changed/.test(text)))
  await ana.sees(ana.user, 'Active')
  const name = (await menu(page).textContent()).replace(/\s+/g, ' ').trim()
  assert.match(name, /^Ana Spoken, Active: set your status$/)
})

test('what the database refuses, the menu says, and stays open', async () => {
  const ana = await Person.create()
  const page = await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  await openMenu(page)
  // More than the field takes, and the database.
  await page.getByLabel('Emoji').evaluate((input) => (input.value = '🎧'.repeat(20)))
  await setStatus(page).click()
  const problem = page.locator('#own-problem')
  await until('the problem', async () => (await problem.textContent()).includes('emoji'))
  assert.ok(await setStatus(page).isEnabled())
  await page.route('**/rpc/set_status', (route) => route.abort())
  await setStatus(page).click()
  await page.getByText('The server cannot be reached. Please try again.').waitFor()
})

test('users declare their own status only, and only while they are signed in', async () => {
  const [ana, ben] = [await Person.create(), await newUser()]
  await ana.signIn(await newUser())
  await ana.sees(ana.user, 'Active')
  const post = async (name, data, request = ana.context.request) => {
    const response = await request.post(`${PAGE}/rpc/${name}`, { data })
    return [response.status(), await response.json()]
  }
  const [status, row] = await post('set_status', { status: 'dnd', status_text: 'Writing' })
  assert.deepEqual([status, row.status, row.status_text, row.user_id], [200, 'busy', 'Writing', ana.user.id])
  // Refused, not taken for a status of one's own.
  assert.equal((await post('set_status', { status: 'away', user_id: ben.id }))[0], 400)
  assert.equal((await post('clear_status', { user_id: ben.id }))[0], 400)
  // Other sources are those of services.
  assert.equal((await post('set_status', { status: 'away', source: 'calendar' }))[0], 403)
  assert.equal((await post('set_status', { status: 'asleep' }))[0], 400)
  assert.deepEqual(await declaredBy(ben), [])
  const stranger = await Person.create()
  assert.equal((await post('set_status', { status: 'away' }, stranger.context.request))[0], 401)
  assert.equal((await post('clear_status', {}, stranger.context.request))[0], 401)
  assert.equal((await declaredBy(ana.user))[0].status, 'busy')
  assert.deepEqual(await post('clear_status', {}), [200, true])
  assert.deepEqual(await post('clear_status', {}), [200, false])
})

test('the package declares a status, and takes it back', async () => {
  const { page } = await withoutSession()
  await page.evaluate(async () => {
    const { keepSession } = await import('/pg-presence/index.js')
    window.session = keepSession()
  })
  const set = (declared) => page.evaluate((declared) => window.session.setStatus(declared), declared)
  const row = await set({ status: 'away', text: 'Lunch', emoji: '🍽️', expiresIn: 90_000 })
  assert.deepEqual([row.source, row.status, row.status_text, row.emoji], ['manual', 'away', 'Lunch', '🍽️'])
  assert.ok(Math.abs(Date.parse(row.expires_at) - Date.parse(row.set_at) - 90_000) < 1000)
  const text = await set({ text: 'In Lisbon', source: 'text', expiresIn: '1 day' })
  assert.deepEqual([text.source, text.status, text.status_text], ['text', null, 'In Lisbon'])
  await assert.rejects(set({}), /status/)
  const clear = (source) => page.evaluate((source) => window.session.clearStatus(source), source)
  assert.equal(await clear(), true)
  assert.equal(await clear(), false)
  assert.equal(await clear('text'), true)
})

for (const [name, options] of [
  ['light', {}],
  ['dark', { colorScheme: 'dark' }],
  ['narrow', { viewport: { width: 390, height: 800 } }],
  ['in forced colours', { forcedColors: 'active' }],
]) {
  test(`axe finds no fault with statuses and the menu, ${name}`, async () => {
    const ana = await Person.create(options)
    const [busy, away, offline] = [await newUser('Aaron Busy'), await newUser('Abel Away'), await newUser('Ada Offline')]
    for (const user of [busy, away]) await visit(user)
    const page = await ana.signIn(await newUser('Abigail Featherstonehaugh'))
    await declare(busy, { status: 'busy', emoji: '📅', text: 'In a meeting about the colours of dots', expiresIn: '1 h' })
    await declare(away, { status: 'away', text: 'W'.repeat(140) })
    await declare(offline, { emoji: '🌴', text: 'Back on Monday' })
    await declare(ana.user, { status: 'available', text: 'Reviewing', emoji: '👀', expiresIn: '30 min' })
    await ana.sees(busy, 'Busy')
    await ana.sees(away, 'Idle')
    await ana.sees(ana.user, 'Active')
    await showsText(page, ana.user, '👀Reviewing')
    assert.deepEqual(await faultsOf(page), [])
    await page.screenshot({ path: `${SHOTS}/statuses-${name.replaceAll(' ', '_')}.png` })
    await openMenu(page)
    await setStatus(page).waitFor()
    assert.deepEqual(await faultsOf(page), [])
    // It does not judge the colours of what lies over something else.
    const hideRest = (isHidden) => page.evaluate((isHidden) => (document.querySelector('main').hidden = isHidden), isHidden)
    await hideRest(true)
    assert.deepEqual(await faultsOf(page, 'color-contrast'), [])
    await hideRest(false)
    const { width } = page.viewportSize()
    assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= width)
    const { x, width: formWidth } = await page.locator('#own-form').boundingBox()
    assert.ok(x >= 0 && x + formWidth <= width, 'the menu is on the screen')
    await page.screenshot({ path: `${SHOTS}/menu-${name.replaceAll(' ', '_')}.png` })
    const dotOf = (user) =>
      page.locator(`tr[data-user="${user.id}"] .status .dot`).evaluate((dot) => {
        const { backgroundColor, backgroundImage } = getComputedStyle(dot)
        return `${backgroundColor} ${backgroundImage}`
      })
    const dots = await Promise.all([busy, away, offline, ana.user].map(dotOf))
    assert.equal(new Set(dots).size, 4)
  })
}
