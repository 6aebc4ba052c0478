// Texts of others, and times, as the page shows them.

// Those that the reader prefers; some browsers name the locale of the system, such as C, which is no language.
export const languages = navigator.languages.filter((language) => {
  try {
    return Intl.getCanonicalLocales(language)
  } catch {
    return false
  }
})

const isNarrow = matchMedia('(max-width: 38rem)')

// Names may contain anything. Characters that control a terminal, or the direction of what follows, are shown as such;
// the marks that right-to-left names need are no danger inside an element or between isolates.
export const plain = (text) => text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, '\ufffd')

// For a sentence: whatever the direction of the name, it does not change that of the sentence.
export const isolated = (text) => `\u2068${plain(text)}\u2069`

export const initials = (name) => name.split(/\s+/).filter(Boolean).map((word) => [...word][0]).slice(0, 2).join('').toUpperCase()

const UNITS = [['day', 86400], ['hour', 3600], ['minute', 60], ['second', 1]]
const formats = ['long', 'short'].map((style) => new Intl.RelativeTimeFormat(languages, { numeric: 'auto', style }))
const format = (value, unit) => formats[Number(isNarrow.matches)].format(value, unit)

export const language = formats[0].resolvedOptions().locale
export const now = () => format(0, 'second')

export function timeAgo(ms) {
  const seconds = Math.max(Math.round(ms / 1000), 1)
  const [unit, size] = UNITS.find(([, size]) => seconds >= size)
  return format(-Math.floor(seconds / size), unit)
}
