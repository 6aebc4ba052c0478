// The login page: signs in as one of the users.

import { afterLogin } from './presence.js'

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
    afterLogin()
    location.assign('/')
  } catch (error) {
    showNotice(error.message)
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

function userItem({ id, name, title }) {
  const button = document.createElement('button')
  button.type = 'button'
  button.dataset.user = id
  const span = (className, textContent) => Object.assign(document.createElement('span'), { className, textContent })
  button.append(span('name', name), span('muted', title))
  button.addEventListener('click', () => signIn(id))
  const item = document.createElement('li')
  item.append(button)
  return item
}

loadUsers()
