/** Who asks for something. */
export interface Caller {
  name: string
  role: string
  requestId: string | null
  /** Under which the same request counts once, and what the request was. */
  key?: { text: string; hash: string } | undefined
}
