// One operation of the batch handler over RunPod's queue: POST /runsync, then GET /status/{id} until the answer is final.
//
// Every operation is safe to repeat: reads change nothing, a create carries its idempotency key. So whatever is lost on
// the way (a 524 of the edge, a dropped connection, a job that RunPod no longer knows) is simply sent again, and this
// is the only layer that does so.
import { Buffer } from 'node:buffer';
import type { Clock } from './clock.js';
import {
  isConnectionError,
  isRetryable,
  isServerError,
  type LlmBatchError,
  RequestTimeoutError,
  RequestTooLargeError,
} from './errors.js';
import { type HttpAnswer, sendHttp } from './http.js';
import { countedOverBatch, type Part } from './parts.js';
import { intervalMs, JOB_SCHEDULE } from './polling.js';
import { retryDelayMs } from './retry.js';
import {
  bodyOf,
  errorOfHttp,
  errorOfJob,
  errorOfNonsense,
  FAILURE_PREFIX,
  type Operation,
  parseJob,
} from './wire.js';

// RunPod's limit for the body of a /runsync call.
const MAX_BODY_BYTES = 20_000_000;

// RunPod's edge cuts a call at about 100 s and the job's id is lost with it: never ask to be held that long.
const MAX_HOLD_MS = 60_000;
const MIN_HOLD_MS = 1_000;

/** Where and how to call. */
export interface TransportSettings {
  readonly baseUrl: string;
  readonly apiKey: string;
  readonly fetch: typeof globalThis.fetch;
  readonly timeoutMs: number;
  readonly operationTimeoutMs: number;
  readonly maxRetries: number;
  readonly clock: Clock;
}

/** What one operation is called with, besides its input. */
export interface OperationOptions {
  readonly signal?: AbortSignal | undefined;
  /** Limit for the operation where it is tighter than the settings' own. */
  readonly withinMs?: number;
  /** The output that a final error stands for if the reply to an earlier try was lost; undefined to throw the error. */
  readonly afterLostReply?: (error: LlmBatchError) => unknown;
}

interface Call {
  readonly operation: Operation;
  readonly body: string | Uint8Array;
  readonly limitMs: number;
  readonly deadline: number;
  /** The place in the batch of the first request in the body. */
  readonly first: number;
  readonly signal: AbortSignal | undefined;
}

/** What one HTTP call brought: the output, a job to look at again, or a passing fault (and whether the job is gone). */
type Step =
  | { readonly kind: 'done'; readonly output: unknown }
  | { readonly kind: 'pending'; readonly jobId: string }
  | { readonly kind: 'fault'; readonly error: LlmBatchError; readonly jobGone: boolean };

/** Calls operations of one batch endpoint. */
export class Transport {
  readonly #settings: TransportSettings;

  constructor(settings: TransportSettings) {
    this.#settings = settings;
  }

  /** The operation's output, or one of the errors of errors.ts after all retries. */
  call(
    operation: Operation,
    input: Readonly<Record<string, unknown>>,
    options: OperationOptions = {},
  ): Promise<unknown> {
    return this.#run(operation, checkedSize(operation, bodyOf(operation, input)), 0, options);
  }

  /** The same for an operation on a part. What an error says of `requests[i]` counts over the whole batch. */
  callPart(operation: Operation, part: Part, options: OperationOptions = {}): Promise<unknown> {
    return this.#run(operation, part.body, part.first, options);
  }

  async #run(
    operation: Operation,
    body: string | Uint8Array,
    first: number,
    options: OperationOptions,
  ): Promise<unknown> {
    const { clock, operationTimeoutMs } = this.#settings;
    const limitMs = Math.min(options.withinMs ?? operationTimeoutMs, operationTimeoutMs);
    const deadline = clock.now() + limitMs;
    const call = { operation, body, limitMs, deadline, first, signal: options.signal };
    const history = { replyLost: false };
    try {
      return await this.#callUntilFinal(call, history);
    } catch (error) {
      if (!history.replyLost || isRetryable(error)) throw error;
      const output = await options.afterLostReply?.(error as LlmBatchError);
      if (output === undefined) throw error;
      return output;
    }
  }

  async #callUntilFinal(call: Call, history: { replyLost: boolean }): Promise<unknown> {
    let jobId: string | undefined;
    let looks = 0;
    let failures = 0;
    for (;;) {
      const step = jobId === undefined ? await this.#submit(call) : await this.#look(call, jobId);
      if (step.kind === 'done') return step.output;
      if (step.kind === 'pending') {
        jobId = step.jobId;
        await this.#pause(call, jobId, looks);
        looks += 1;
      } else {
        failures += 1;
        history.replyLost ||= isConnectionError(step.error) || isServerError(step.error);
        if (step.jobGone) jobId = undefined;
        await this.#backOff(call, failures, step.error);
      }
    }
  }

  async #submit(call: Call): Promise<Step> {
    const holdMs = Math.min(MAX_HOLD_MS, (this.#settings.timeoutMs * 2) / 3, this.#remainingMs(call));
    const wait = Math.max(MIN_HOLD_MS, Math.floor(holdMs));
    return this.#send(call, 'POST', `/runsync?wait=${wait}`, (answer) => {
      if (!answer.ok) throw errorOfHttp(call.operation, answer);
      return this.#stepOf(call, answer.body, undefined);
    });
  }

  async #look(call: Call, jobId: string): Promise<Step> {
    return this.#send(call, 'GET', `/status/${encodeURIComponent(jobId)}`, (answer) => {
      // RunPod keeps the result of a /runsync job for a minute only: one that is gone is sent again.
      if (answer.status === 404) return gone(errorOfNonsense(call.operation, `RunPod lost the job ${jobId}`));
      if (!answer.ok) throw errorOfHttp(call.operation, answer);
      return this.#stepOf(call, answer.body, jobId);
    });
  }

  /** One HTTP call, read by `read`. A passing fault becomes a step; anything else is thrown. */
  async #send(
    call: Call,
    method: 'GET' | 'POST',
    path: string,
    read: (answer: HttpAnswer) => Step,
  ): Promise<Step> {
    const { baseUrl, apiKey, fetch, clock, timeoutMs } = this.#settings;
    const headers = { authorization: `Bearer ${apiKey}`, accept: 'application/json' };
    try {
      const answer = await sendHttp(
        fetch,
        {
          method,
          url: `${baseUrl}${path}`,
          headers: method === 'POST' ? { ...headers, 'content-type': 'application/json' } : headers,
          ...(method === 'POST' ? { body: call.body } : {}),
          timeoutMs: Math.max(1, Math.min(timeoutMs, this.#remainingMs(call) + MIN_HOLD_MS)),
          signal: call.signal,
          failure: FAILURE_PREFIX[call.operation],
        },
        () => clock.now(),
      );
      return read({ ...answer, body: answer.ok ? answer.body : this.#redact(answer.body) });
    } catch (error) {
      if (!isRetryable(error)) throw error;
      return { kind: 'fault', error, jobGone: false };
    }
  }

  #stepOf(call: Call, body: string, knownId: string | undefined): Step {
    const job = parseJob(body);
    if (job === undefined) throw errorOfNonsense(call.operation, `not a RunPod job: ${this.#redact(body)}`);
    if (job.state === 'failed') {
      const error = errorOfJob(call.operation, job, (text) =>
        countedOverBatch(this.#redact(text), call.first),
      );
      if (isRetryable(error)) return gone(error);
      throw error;
    }
    if (job.state === 'completed') {
      // A handler whose answer RunPod could not read looks like this.
      if (job.output === undefined)
        return gone(errorOfNonsense(call.operation, 'the job completed without output'));
      return { kind: 'done', output: job.output };
    }
    const jobId = job.id ?? knownId;
    if (jobId === undefined) throw errorOfNonsense(call.operation, 'an unfinished job without an id');
    return { kind: 'pending', jobId };
  }

  async #pause(call: Call, jobId: string, looks: number): Promise<void> {
    const remainingMs = this.#remainingMs(call);
    if (remainingMs <= 0) {
      const message = `${FAILURE_PREFIX[call.operation]}: no final answer within ${call.limitMs}ms (job ${jobId} is not done)`;
      throw new RequestTimeoutError(message, { type: 'timeout_error' });
    }
    await this.#settings.clock.sleep(Math.min(intervalMs(JOB_SCHEDULE, looks), remainingMs), call.signal);
  }

  async #backOff(call: Call, failures: number, error: LlmBatchError): Promise<void> {
    const { clock, maxRetries } = this.#settings;
    const delayMs = retryDelayMs({
      failures,
      maxRetries,
      retryAfterMs: error.retryAfterMs,
      remainingMs: this.#remainingMs(call),
      random: clock.random(),
    });
    if (delayMs === null) throw error;
    await clock.sleep(delayMs, call.signal);
  }

  #remainingMs(call: Call): number {
    return call.deadline - this.#settings.clock.now();
  }

  // A proxy may echo the call that it refuses, its headers included.
  #redact(text: string): string {
    return text.split(this.#settings.apiKey).join('***');
  }
}

function gone(error: LlmBatchError): Step {
  return { kind: 'fault', error, jobGone: true };
}

function checkedSize(operation: Operation, body: string): string {
  const bytes = Buffer.byteLength(body);
  if (bytes <= MAX_BODY_BYTES) return body;
  const message = `${FAILURE_PREFIX[operation]}: 413 the call has ${bytes} bytes, over RunPod's limit of ${MAX_BODY_BYTES} (20 MB) for one call`;
  throw new RequestTooLargeError(message, { status: 413, type: 'request_too_large' });
}
