// When to try again: pure functions of numbers. Full jitter, because many callers often fail at the same moment.

/** Bounds of the waits between tries, in milliseconds. */
export interface Backoff {
  /** The longest possible first wait; doubles with each try. */
  readonly baseMs: number;
  /** No wait chosen by us is longer. */
  readonly capMs: number;
}

export const RETRY_BACKOFF: Backoff = { baseMs: 500, capMs: 15_000 };

/** What is known when a try has failed. */
export interface FailedTry {
  /** Tries failed so far, this one included. */
  readonly failures: number;
  readonly maxRetries: number;
  /** What the server asked for, if it did. */
  readonly retryAfterMs: number | undefined;
  /** Left until the operation's deadline. */
  readonly remainingMs: number;
  /** A number in [0, 1). */
  readonly random: number;
}

/** How long to wait before the next try, in milliseconds, or null to give up: a try never starts after the deadline. */
export function retryDelayMs(failed: FailedTry, backoff: Backoff = RETRY_BACKOFF): number | null {
  if (failed.failures > failed.maxRetries) return null;
  const ceilingMs = Math.min(backoff.capMs, backoff.baseMs * 2 ** (failed.failures - 1));
  const delayMs = Math.max(failed.retryAfterMs ?? 0, Math.round(failed.random * ceilingMs));
  return delayMs < failed.remainingMs ? delayMs : null;
}

/** A Retry-After header, in seconds or as a date, as milliseconds from `nowMs`; undefined if absent or unreadable. */
export function parseRetryAfterMs(header: string | null, nowMs: number): number | undefined {
  if (header === null || header.trim() === '') return undefined;
  const seconds = Number(header);
  const ms = Number.isNaN(seconds) ? Date.parse(header) - nowMs : seconds * 1000;
  return Number.isFinite(ms) ? Math.max(0, ms) : undefined;
}
