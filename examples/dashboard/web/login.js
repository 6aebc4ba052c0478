// Signs in as one of the users there are.

import { hasLoggedIn } from './presence.js'

const notice = document.querySelector('#notice')
const people = document.querySelector('#people')

function say(text) {
  notice.textContent = text
  notice.hidden = !text
}

async function ask(url, init) {
  const response = await fetch(url, init).catch(() => {
    throw new Error('The server cannot be reached. Please try again shortly.')
  })
  const answer = await response.json()
  if (!response.ok) throw new Error(answer.message)
  return answer
}

async function signIn(user_id) {
  try {
    await ask('/api/login', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ user_id }),
    })
    hasLoggedIn()
    location.assign('/')
  } catch (error) {
    say(error.message)
  }
}

async function show() {
  try {
    const users = await ask('/api/people')
    people.replaceChildren(...users.map(card))
    say('')
  } catch (error) {
    say(error.message)
    setTimeout(show, 2000)
  }
}

function card({ id, name, title }) {
  const button = document.createElement('button')
  button.type = 'button'
  button.dataset.user = id
  const text = (kind, content) => Object.assign(document.createElement('span'), { className: kind, textContent: content })
  button.append(text('name', name), text('quiet', title))
  button.addEventListener('click', () => signIn(id))
  const item = document.createElement('li')
  item.append(button)
  return item
}

show()
