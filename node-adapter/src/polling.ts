// How often to look: the growing intervals between polls, and the loop that waits for a batch's end.
import type { Clock } from './clock.js';
import { isRequestTimeoutError, isRetryable, WaitTimeoutError } from './errors.js';
import type { BatchStatus } from './types.js';

/** Intervals that grow by a factor up to a cap. */
export interface Schedule {
  readonly startMs: number;
  readonly factor: number;
  readonly capMs: number;
}

/** Between two looks at a batch. */
export const BATCH_SCHEDULE: Schedule = { startMs: 1_000, factor: 1.5, capMs: 30_000 };

/** Between two looks at one job of the batch endpoint: such a job takes milliseconds once a worker has it. */
export const JOB_SCHEDULE: Schedule = { startMs: 250, factor: 1.5, capMs: 5_000 };

/** The wait after the `poll`-th look (from 0), in milliseconds. */
export function intervalMs(schedule: Schedule, poll: number): number {
  return Math.min(schedule.capMs, schedule.startMs * schedule.factor ** poll);
}

/** What the waiting loop needs from its caller. */
export interface Wait {
  readonly batchId: string;
  readonly maxWaitMs: number;
  readonly schedule: Schedule;
  readonly clock: Clock;
  /** Looks once; gives up after `withinMs`. */
  readonly look: (withinMs: number) => Promise<BatchStatus>;
  readonly onProgress: ((status: BatchStatus) => void) | undefined;
  readonly signal: AbortSignal | undefined;
}

// A look at the very end of the wait still gets this long to be answered.
const LAST_LOOK_MS = 1_000;

/**
 * Looks until the batch has ended and gives its last status.
 *
 * The first look fails as a single call does, so that a wrong URL or key shows at once. After one answer, passing
 * faults (no connection, 429, 5xx) are ridden out until the limit: an outage of a minute does not lose a long wait.
 * Throws WaitTimeoutError at the limit, with the last fault as its cause.
 */
export async function waitUntilEnded(wait: Wait): Promise<BatchStatus> {
  const { batchId, maxWaitMs, clock } = wait;
  const deadline = clock.now() + maxWaitMs;
  let answered = false;
  let fault: unknown;
  for (let poll = 0; ; poll += 1) {
    try {
      const status = await wait.look(Math.max(deadline - clock.now(), LAST_LOOK_MS));
      wait.onProgress?.(status);
      if (status.processing_status === 'ended') return status;
      answered = true;
      fault = undefined;
    } catch (error) {
      const outOfTime = isRequestTimeoutError(error) && clock.now() >= deadline;
      if (!outOfTime && !(answered && isRetryable(error))) throw error;
      fault = error;
    }
    const remainingMs = deadline - clock.now();
    if (remainingMs <= 0) throw new WaitTimeoutError(batchId, maxWaitMs, fault);
    await clock.sleep(Math.min(intervalMs(wait.schedule, poll), remainingMs), wait.signal);
  }
}
