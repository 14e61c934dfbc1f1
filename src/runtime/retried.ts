import { isConnectionError, isTransientError } from '../store/database.ts'

/** Reads that an effect needs are tried until the database answers: the run waits meanwhile. */
export async function retried<T>(read: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await read()
    } catch (error) {
      if (!isConnectionError(error) && !isTransientError(error)) throw error
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
  }
}
