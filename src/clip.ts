/** The first `length` characters of a text, without half a character at the cut. */
export function clip(text: string, length: number): string {
  if (text.length <= length) return text
  const cut = text.slice(0, length)
  // A high surrogate whose other half was cut off is not valid Unicode, and Postgres refuses it.
  return /[\uD800-\uDBFF]$/.test(cut) ? cut.slice(0, -1) : cut
}
