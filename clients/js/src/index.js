export { keepSession } from './session.js'
export { watchPresence } from './watch.js'
