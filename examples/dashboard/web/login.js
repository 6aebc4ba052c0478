// The login page: signs in as one of the users.

import { plain } from './text.js'

const notice = document.querySelector('#notice')
const list = document.querySelector('#user-list')

function showNotice(text) {
  notice.textContent = text
  notice.hidden = !text
}

async function request(url, init) {
  const response = await fetch(url, init).catch(() => {
    throw new Error('The server cannot be reached. Please try again shortly.')
  })
  const body = await response.json()
  if (!response.ok) throw new Error(body.message)
  return body
}

async function signIn(user_id) {
  try {
    await request('/api/login', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ user_id }),
    })
    nameLogin(user_id)
    location.assign('/')
  } catch (error) {
    showNotice(error.message)
  }
}

// Names this login for the users page, which cannot see the cookie: a page that finds the session of another login ends
// that session. A real application has the ID of the login.
function nameLogin(user_id) {
  try {
    localStorage.setItem('login', `${user_id} ${crypto.getRandomValues(new Uint32Array(2)).join('')}`)
  } catch {
    // No storage: the database alone tells users apart.
  }
}

async function loadUsers() {
  try {
    const users = await request('/api/users')
    list.replaceChildren(...users.map(userItem))
    showNotice('')
  } catch (error) {
    showNotice(error.message)
    setTimeout(loadUsers, 2000)
  }
}

function userItem({ id, name, title, is_simulated }) {
  const button = document.createElement('button')
  button.type = 'button'
  button.dataset.user = id
  const span = (className, textContent) => Object.assign(document.createElement('span'), { className, textContent })
  const label = document.createElement('bdi')
  label.className = 'name'
  label.textContent = plain(name)
  button.append(label, span('title muted', plain(title)))
  if (is_simulated) button.append(span('badge', 'simulated'))
  button.addEventListener('click', () => signIn(id))
  const item = document.createElement('li')
  item.append(button)
  return item
}

loadUsers()
