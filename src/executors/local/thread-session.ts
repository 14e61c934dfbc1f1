import { setTimeout as delay } from 'node:timers/promises'
import type { SessionTools } from '../../agents/context.ts'
import { SessionControl } from '../../agents/control.ts'
import type { Agent } from '../../agents/agent.ts'
import type {
  ChildReport,
  Delegation,
  SessionCall,
  SessionMessage,
  SessionPort,
  Signal,
} from '../../agents/port.ts'
import { runSession } from '../../agents/session.ts'
import type { AgentSource } from '../../agents/source.ts'
import { messageOf, SessionClosed } from '../../errors.ts'
import { asSession } from './thread-guard.ts'
import type { Assignment, FromThread, ToThread } from './thread-messages.ts'

/** How long code that was ended hard may take to notice, before it is given up. */
const ABANDON_MS = 500
/** Code may tell that it is alive as often as it likes; it is passed on no more often than this. */
const BEAT_MS = 100

export interface ThreadSessionOptions {
  post(message: FromThread): void
  /** The lease is held. */
  mayAct(): boolean
  open(source: AgentSource): Promise<{ agent: Agent; tools: SessionTools }>
  onOver(): void
}

type Answer = {
  resolve: (answer: boolean | ChildReport | Signal) => void
  reject: (error: Error) => void
}
type Instruction = Exclude<ToThread, { type: 'start' | 'describe' }>

/** One attempt inside a thread: its control, and its port to the main thread. */
export class ThreadSession implements SessionPort {
  #session: number
  #options: ThreadSessionOptions
  #control = new SessionControl()
  #waiting = new Map<number, Answer>()
  #asked = 0
  #beatAt = -BEAT_MS

  constructor(session: number, options: ThreadSessionOptions) {
    this.#session = session
    this.#options = options
  }

  async run({ job, source }: Assignment): Promise<void> {
    this.begun()
    const ended = asSession(this.#session, () => this.#perform(job, source))
    const abandoned = await Promise.race([ended.then(() => false), this.#outlivesKill()])
    this.#options.onOver()
    this.#options.post({ type: 'over', session: this.#session, abandoned })
  }

  receive(message: Instruction): void {
    if (!('id' in message)) return this.#control[message.type]()
    const asked = this.#waiting.get(message.id)
    this.#waiting.delete(message.id)
    if (message.type === 'cleared') asked?.resolve(message.accepted)
    else if (message.type === 'answered') asked?.resolve(message.answer)
    else asked?.reject(new SessionClosed('the run is not ours any more'))
  }

  begun(): void {
    this.#options.post({ type: 'begun', session: this.#session })
  }

  send(message: SessionMessage): void {
    this.#options.post({ type: 'send', session: this.#session, message })
  }

  beat(): void {
    const now = performance.now()
    if (now - this.#beatAt < BEAT_MS) return
    this.#beatAt = now
    this.#options.post({ type: 'beat', session: this.#session })
  }

  begin(call: SessionCall, timeoutMs: number | null): Promise<boolean> {
    return this.#ask((id) => ({ type: 'begin', session: this.#session, id, call, timeoutMs }))
  }

  delegate(call: SessionCall, child: Delegation): Promise<boolean> {
    return this.#ask((id) => ({ type: 'delegate', session: this.#session, id, call, child }))
  }

  reportOf(child_run_id: string): Promise<ChildReport> {
    return this.#answerTo((id) => ({ type: 'report', session: this.#session, id, child_run_id }))
  }

  signalNamed(name: string): Promise<Signal> {
    return this.#answerTo((id) => ({ type: 'signal', session: this.#session, id, name }))
  }

  park(calls: SessionCall[]): Promise<boolean> {
    return this.#answerTo((id) => ({ type: 'park', session: this.#session, id, calls }))
  }

  async barrier(): Promise<void> {
    await this.#ask((id) => ({ type: 'barrier', session: this.#session, id }))
  }

  async clearance(): Promise<void> {
    await this.#ask((id) => ({ type: 'clearance', session: this.#session, id }))
  }

  async #perform(job: Assignment['job'], source: AgentSource): Promise<void> {
    try {
      const { agent, tools } = await this.#options.open(source)
      await runSession(agent, job, this, this.#control, tools)
    } catch (error) {
      this.send({ type: 'run.failed', code: 'agent_unavailable', message: messageOf(error) })
    }
  }

  /** The answer may have been on its way while the process was frozen: the lease is checked here, at the last moment. */
  async #ask(question: (id: number) => FromThread): Promise<boolean> {
    const accepted = await this.#answerTo<boolean>(question)
    while (!this.#options.mayAct())
      await this.#answerTo((id) => ({ type: 'barrier', session: this.#session, id }))
    return accepted
  }

  #answerTo<T extends boolean | ChildReport | Signal>(
    question: (id: number) => FromThread,
  ): Promise<T> {
    this.#asked += 1
    const id = this.#asked
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as Answer['resolve'], reject })
      this.#options.post(question(id))
    })
  }

  #outlivesKill(): Promise<true> {
    return new Promise((resolve) => {
      const giveUp = (): void => void delay(ABANDON_MS).then(() => resolve(true))
      this.#control.hard.signal.addEventListener('abort', giveUp, { once: true })
    })
  }
}
