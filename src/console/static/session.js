import { json, pause } from '/console/requests.js'

/** What the role of the session may do; the service decides, the page only offers no button in vain. */
export const mayOperate = (who) => who?.role === 'operator' || who?.role === 'admin'
/** A service may post runs, and act on those that it posted. */
export const mayPost = (who) => mayOperate(who) || who?.role === 'service'
export const mayActOn = (who, run) =>
  mayOperate(who) || (who?.role === 'service' && run.created_by === who.name)

/** Who this browser's session belongs to; null without one. */
const whoAmI = () =>
  json('/session').catch((error) => {
    if (error.status === 401) return null
    throw error
  })

/**
 * The session of before, if it still holds; null: somebody has to log in. Asks until the service answers.
 * @throws when it refuses to say
 */
export async function resumed(onAway) {
  for (;;) {
    try {
      return await whoAmI()
    } catch (error) {
      if (error.status < 500) throw error
      onAway()
      await pause(2_000)
    }
  }
}

const NO_COOKIE =
  'The token is right, but this browser did not keep the cookie of the session. Browsers keep it over HTTPS, and over ' +
  'plain HTTP only for the machine they run on: open the console under https://, or under http://127.0.0.1 (a remote ' +
  'machine through an SSH tunnel). Safari keeps it over HTTPS only.'

/**
 * The token goes to the service once; what stays is a cookie that no script can read.
 * @throws with words for the person at the page
 */
export async function logIn(token) {
  await json('/session', { method: 'POST', body: JSON.stringify({ token }) }).catch((error) => {
    throw error.status === 401 ? new Error('This token is not known here.') : error
  })
  const who = await whoAmI()
  if (who === null) throw new Error(NO_COOKIE)
  return who
}

export const logOut = () => json('/session', { method: 'DELETE' })
