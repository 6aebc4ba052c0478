// Parses server-sent events. Unlike EventSource, a request that reads them has headers, and says why it fails.

// Returns a function that takes pieces of a stream and calls `onEvent(name, data)` for each event that is complete.
export function eventParser(onEvent) {
  let rest = ''
  let name = ''
  let data = []
  return (piece) => {
    // Lines end with \r\n, \n or \r; of a \r at the end of a piece, the \n may be in the next one.
    const lines = (rest + piece).split(/\r\n|\n|\r(?!$)/)
    rest = lines.pop()
    for (const line of lines) {
      if (line === '') {
        if (data.length) onEvent(name || 'message', data.join('\n'))
        name = ''
        data = []
        continue
      }
      const [, field, value = ''] = line.match(/^([^:]*)(?:: ?([^]*))?$/)
      if (field === 'event') name = value
      if (field === 'data') data.push(value)
    }
  }
}
