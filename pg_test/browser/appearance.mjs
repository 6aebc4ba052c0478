// What the page looks like: long and hostile names, narrow screens, forced colours, other languages; and axe's rules.

import assert from 'node:assert/strict'
import { faultsOf } from './axe.mjs'
import { newUser, PAGE, Person, show, hide, SHOTS, sql, visit } from './fixtures.mjs'
import { test, until } from './framework.mjs'

const LONG = {
  word: 'W'.repeat(60),
  address: 'maximiliane.schwarzenberger-hohenstein@verwaltungsgemeinschaft.example',
  words: 'Juana Inés María del Carmen de la Santísima Trinidad Fernández de Velasco y Tovar Enríquez de Guzmán',
}

// Waits for the row of a user, and returns it.
async function rowOf(page, user) {
  const row = page.locator(`tr[data-user="${user.id}"]`)
  await row.waitFor({ state: 'attached' })
  return row
}

for (const width of [1100, 390, 320]) {
  test(`at ${width} pixels nothing leaves the card, however long a name or a title is`, async () => {
    const ana = await Person.create({ viewport: { width, height: 800 } })
    const users = []
    for (const name of Object.values(LONG)) users.push(await newUser(name))
    await sql('UPDATE app.users SET title = $2 WHERE id = $1', [users[0].id, 'T'.repeat(3000)])
    const leave = await visit(users[1])
    const page = await ana.signIn(users[2])
    await ana.sees(users[1], 'Active')
    await ana.sees(users[2], 'Active')
    leave()
    await sql('SELECT presence.end_user_sessions($1)', [users[1].id])
    await ana.sees(users[1], 'Inactive')
    for (const user of users) {
      const outside = await (await rowOf(page, user)).evaluate((row) => {
        const card = document.querySelector('.card').getBoundingClientRect()
        const isOutside = (element) => {
          const { left, right, width } = element.getBoundingClientRect()
          return width > 0 && (left < card.left || right > card.right)
        }
        return [...row.querySelectorAll('*')].filter(isOutside).map((element) => element.className || element.localName)
      })
      assert.deepEqual(outside, [], user.name)
    }
    assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= width)
    // A title does not make its row a page of its own.
    assert.ok((await (await rowOf(page, users[0])).locator('.title').boundingBox()).height < 60)
    // The time of last seen stays in one line.
    const time = (await rowOf(page, users[1])).locator('time')
    assert.match(await time.textContent(), /ago$/)
    assert.equal(await time.evaluate((time) => time.getClientRects().length), 1)
    await (await rowOf(page, users[0])).scrollIntoViewIfNeeded()
    await page.screenshot({ path: `${SHOTS}/long_names-${width}.png` })
    await page.goto(`${PAGE}/login`)
    await page.locator(`button[data-user="${users[0].id}"]`).waitFor()
    assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= width, 'the login')
  })
}

test('at 390 pixels the page still says whose it is', async () => {
  const ana = await Person.create({ viewport: { width: 390, height: 800 } })
  const page = await ana.signIn(await newUser('Alexandrina Featherstonehaugh'))
  await ana.sees(ana.user, 'Active')
  const brand = page.locator('.topbar .brand')
  assert.notEqual(await brand.evaluate((brand) => getComputedStyle(brand).fontSize), '0px')
  assert.ok((await brand.boundingBox()).width > 60)
  assert.ok((await page.locator('#own-name').boundingBox()).width > 60)
  await page.screenshot({ path: `${SHOTS}/narrow.png` })
})

test('characters that control direction or terminals change nothing outside a name', async () => {
  const ana = await Person.create()
  const page = await ana.signIn(await newUser('Ana'))
  const eve = await newUser('Eve \u202Eevitca\u2066\u001b[31m')
  const noor = await newUser('\u0646\u0648\u0631 \u0627\u0644\u0647\u062f\u0649')
  await ana.sees(eve, 'Inactive')
  assert.equal(await (await rowOf(page, eve)).locator('.name').textContent(), 'Eve \ufffdevitca\ufffd\ufffd[31m')
  // The name is a bidirectional run of its own.
  for (const user of [eve, noor]) {
    assert.equal(await (await rowOf(page, user)).locator('.name').evaluate((name) => getComputedStyle(name).unicodeBidi), 'isolate')
  }
  await visit(eve)
  await ana.sees(eve, 'Active')
})

test('a row that turns active glows green, one that turns inactive does not', async () => {
  const ana = await Person.create()
  const page = await ana.signIn(await newUser())
  const ben = await newUser()
  await ana.sees(ben, 'Inactive')
  const row = await rowOf(page, ben)
  const glow = () => row.evaluate((row) => {
    const { animationName } = getComputedStyle(row)
    if (animationName === 'none') return null
    const element = document.createElement('p')
    document.body.append(element)
    element.style.animation = `${animationName} 1s paused`
    const { backgroundColor } = getComputedStyle(element)
    element.remove()
    const [red, green, blue] = backgroundColor.match(/[\d.]+/g).map(Number)
    return green > red + 30 && green > blue + 30 ? 'green' : 'gray'
  })
  assert.equal(await glow(), null)
  await visit(ben)
  await ana.sees(ben, 'Active')
  assert.equal(await glow(), 'green')
  await sql('SELECT presence.end_user_sessions($1)', [ben.id])
  await ana.sees(ben, 'Inactive')
  assert.equal(await glow(), 'gray')
})

test('with forced colours the dots still tell active from inactive', async () => {
  const ana = await Person.create({ forcedColors: 'active' })
  const page = await ana.signIn(await newUser())
  const ben = await newUser()
  await ana.sees(ana.user, 'Active')
  await ana.sees(ben, 'Inactive')
  const styleOf = async (user) =>
    (await rowOf(page, user)).locator('.dot').evaluate((dot) => {
      const { backgroundColor, borderTopColor, borderTopWidth } = getComputedStyle(dot)
      return { backgroundColor, borderTopColor, borderTopWidth }
    })
  const [on, off, canvas] = [await styleOf(ana.user), await styleOf(ben), await page.evaluate(() => getComputedStyle(document.body).backgroundColor)]
  assert.notEqual(on.backgroundColor, canvas)
  assert.equal(off.backgroundColor, canvas)
  assert.equal(off.borderTopWidth, '2px')
  assert.notEqual(off.borderTopColor, canvas)
  await page.screenshot({ path: `${SHOTS}/forced_colours.png` })
})

test('times are relative in the language of the reader, by the clock of the server', async () => {
  const ana = await Person.create({ locale: 'de-DE' })
  // A computer whose clock is a day ahead.
  await ana.context.addInitScript(() => {
    const now = Date.now
    Date.now = () => now() + 86_400_000
  })
  const ben = await newUser()
  await visit(ben)
  const page = await ana.signIn(await newUser())
  await ana.sees(ben, 'Active')
  await sql('SELECT presence.end_user_sessions($1)', [ben.id])
  await ana.sees(ben, 'Inactive')
  const time = (await rowOf(page, ben)).locator('time')
  assert.match(await time.textContent(), /^vor \d+ (Sekunden?|Minuten?)$/)
  assert.equal(await time.getAttribute('lang'), 'de-DE')
})

test('the login marks who is simulated', async () => {
  const ana = await Person.create()
  const page = await ana.open('/login')
  const button = (name) => page.getByRole('button', { name })
  await button('Amara Okafor').waitFor()
  assert.doesNotMatch(await button('Amara Okafor').textContent(), /simulated/)
  assert.match(await button('Dmitri Volkov').textContent(), /simulated/)
})

for (const [name, options] of [
  ['light', {}],
  ['dark', { colorScheme: 'dark' }],
  ['narrow', { viewport: { width: 390, height: 800 } }],
  ['in forced colours', { forcedColors: 'active' }],
]) {
  test(`axe finds no fault with the pages, ${name}`, async () => {
    const ana = await Person.create(options)
    const ben = await newUser(LONG.words)
    const page = await ana.signIn(await newUser())
    await ana.sees(ana.user, 'Active')
    await visit(ben)
    await ana.sees(ben, 'Active')
    assert.deepEqual(await faultsOf(page), [])
    await page.screenshot({ path: `${SHOTS}/page-${name.replaceAll(' ', '_')}.png` })
    // With a notice.
    await ana.context.route('**/api/events', (route) => route.fulfill({ status: 503, json: {} }))
    await hide(page)
    await show(page)
    await page.getByText('The database cannot be reached. What you see is as of').waitFor()
    assert.deepEqual(await faultsOf(page), [])
    await page.screenshot({ path: `${SHOTS}/notice-${name.replaceAll(' ', '_')}.png` })
    await ana.stopMoving()
    await page.goto(`${PAGE}/login`)
    await page.locator('button[data-user]').first().waitFor()
    assert.deepEqual(await faultsOf(page), [])
    await page.screenshot({ path: `${SHOTS}/login-${name.replaceAll(' ', '_')}.png` })
  })
}
