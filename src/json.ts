import { createHash } from 'node:crypto'
import type { FieldError } from './errors.ts'

/** Any value that JSON can carry. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json }

const JSON_DEPTH_MAX = 64
export const JSON_KEY_LENGTH_MAX = 255
/** Outputs and recorded results: UTF-8 bytes of their JSON text. */
export const OUTPUT_BYTES_MAX = 1_000_000

/**
 * Finds what Postgres would refuse or silently change: NUL and lone surrogates (in text or keys), numbers out of range,
 * too deep, too long keys. Stops at the first 20 findings.
 */
export function jsonProblems(value: unknown, root = ''): FieldError[] {
  const problems: FieldError[] = []
  visit(value, root, 0, problems)
  return problems
}

function visit(value: unknown, path: string, depth: number, problems: FieldError[]): void {
  if (problems.length >= 20) return
  if (depth >= JSON_DEPTH_MAX && typeof value === 'object' && value !== null) {
    problems.push({ path, message: `is nested deeper than ${JSON_DEPTH_MAX} levels` })
    return
  }
  if (typeof value === 'string') return checkText(value, path, problems)
  if (typeof value === 'number') {
    if (!Number.isFinite(value)) problems.push({ path, message: 'is a number out of range' })
    return
  }
  if (Array.isArray(value)) {
    for (const [index, item] of value.entries())
      visit(item, `${path}[${index}]`, depth + 1, problems)
    return
  }
  if (typeof value !== 'object' || value === null) return
  for (const [key, item] of Object.entries(value)) {
    const inner = path === '' ? key : `${path}.${key}`
    if (key.length > JSON_KEY_LENGTH_MAX) {
      problems.push({
        path: inner.slice(0, 100),
        message: `is a key longer than ${JSON_KEY_LENGTH_MAX} characters`,
      })
      continue
    }
    checkText(key, inner, problems)
    visit(item, inner, depth + 1, problems)
  }
}

function checkText(text: string, path: string, problems: FieldError[]): void {
  if (text.includes('\0'))
    problems.push({ path: printable(path), message: 'contains a NUL character (U+0000)' })
  if (!text.isWellFormed()) {
    problems.push({
      path: printable(path),
      message: 'contains a lone surrogate, which is not valid Unicode',
    })
  }
}

const printable = (path: string): string => path.replaceAll('\0', '\\u0000').toWellFormed()

/** JSON text with sorted keys: two bodies that mean the same have the same canonical text. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map((item) => canonicalJson(item ?? null)).join(',')}]`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null'
  const members = Object.entries(value)
    .filter(([, member]) => member !== undefined)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
  return `{${members.map(([key, member]) => `${JSON.stringify(key)}:${canonicalJson(member)}`).join(',')}}`
}

/** SHA-256 of the canonical text, hex. */
export const hashJson = (value: unknown): string =>
  createHash('sha256').update(canonicalJson(value)).digest('hex')
