// The menu for one's own status.

import { until } from './framework.mjs'

export const menu = (page) => page.locator('#own-summary')

// Opens the menu. It closes by itself only once what was declared last is answered, and a click before that would close it.
export async function openMenu(page) {
  await until('the menu is closed', () => page.locator('#own').evaluate((own) => !own.open))
  await menu(page).click()
}
