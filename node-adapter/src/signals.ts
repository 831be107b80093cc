// Joining abort signals. AbortSignal.any would, but early Node 18 lacks it.

/** A controller that aborts with `signal`, or by itself. */
export interface LinkedAbort {
  readonly controller: AbortController;
  /** Takes the link away: a signal may outlive many calls. */
  readonly unlink: () => void;
}

export function linkedAbort(signal: AbortSignal | undefined): LinkedAbort {
  const controller = new AbortController();
  const follow = () => controller.abort(signal?.reason);
  if (signal?.aborted) follow();
  signal?.addEventListener('abort', follow, { once: true });
  return { controller, unlink: () => signal?.removeEventListener('abort', follow) };
}

/** What `promise` gives; rejects with the signal's reason as soon as that aborts, whatever becomes of the promise. */
export async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  let stop = () => {};
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener('abort', stop, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}
