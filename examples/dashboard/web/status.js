// Statuses as the page shows them: a word, and a dot whose colour says the same.

const WORDS = { active: 'Active', idle: 'Idle', busy: 'Busy', inactive: 'Inactive' }

export const wordOf = ({ status }) => WORDS[status]

// Sets the dot and the word in an element.
export function showStatus(element, user) {
  const dot = element.querySelector('.dot')
  dot.classList.toggle('on', user.status === 'active')
  dot.classList.toggle('idle', user.status === 'idle')
  dot.classList.toggle('busy', user.status === 'busy')
  element.querySelector('.word').textContent = wordOf(user)
}
