// The rollout in the adapter's own dialect: the same functions as the adapter's, over two sides.

import { DEFAULT_MAX_WAIT_MS } from '../client.js';
import { type Clock, systemClock } from '../clock.js';
import { ConfigurationError, RequestTimeoutError } from '../errors.js';
import * as environmentSide from '../llmAdapter.js';
import { BATCH_SCHEDULE, waitUntilEnded } from '../polling.js';
import type {
  BatchCounts,
  BatchRequest,
  BatchResult,
  BatchResultsResponse,
  BatchStatus,
  CallOptions,
  CreateOptions,
  ProcessingStatus,
  ResultsOptions,
  Stage,
  WaitOptions,
} from '../types.js';
import { type Dialect, type DialectSide, RolloutCore, type RolloutOptions, type Share } from './core.js';
import type { Side } from './route.js';

/** What the router calls on a side. The adapter itself is one, LlmBatchClient too, and so is a module of the same names. */
export interface BatchSide {
  createBatch(
    stage: Stage,
    requests: readonly BatchRequest[],
    options?: CreateOptions,
  ): Promise<{ id: string }>;
  getBatchStatus(batchId: string, options?: CallOptions): Promise<BatchStatus>;
  getBatchResults(batchId: string, options?: ResultsOptions): Promise<BatchResultsResponse>;
  /** Used instead of getBatchResults where it is there: it holds less. */
  streamBatchResults?(batchId: string, options?: ResultsOptions): AsyncIterable<BatchResult>;
  /** Without it a batch on this side can't be stopped. */
  cancelBatch?(batchId: string, options?: CallOptions): Promise<BatchStatus>;
  /** The longest custom_id that it takes. Default 256. */
  readonly maxCustomIdChars?: number;
}

/** Options of BatchRouter. */
export interface BatchRouterOptions extends RolloutOptions {
  /** The managed side: `anthropicSide(new Anthropic())`, or the former adapter as a module. */
  remote: BatchSide;
  /** This service. Default: as `LOCAL_BATCH_URL` and `RUNPOD_API_KEY` say at each call. */
  local?: BatchSide;
  /** What sticks together. Default: `metadata.leadId`, else the lead in `lead_{leadId}_{stage}`, else the custom_id. */
  key?: (request: BatchRequest, stage: Stage) => string;
  /** Time between polls, for tests that must not wait. */
  clock?: Clock;
}

/**
 * Creates batches on two sides, by lead, and reads each where it was made, whatever the percentage is by then.
 * An id says its side (`local:...`, `remote:...`), or names both halves of a split batch (`split:...`).
 */
export class BatchRouter {
  readonly #core: RolloutCore<BatchRequest, BatchStatus, BatchResult>;
  readonly #sides: { readonly local: BatchSide; readonly remote: BatchSide };
  readonly #keyOf: (request: BatchRequest, stage: Stage) => string;
  readonly #clock: Clock;

  /** Throws ConfigurationError where `shadowPercent` comes without `comparison`. */
  constructor(options: BatchRouterOptions) {
    const { local = environmentSide, remote, key = leadOf } = options;
    this.#sides = { local, remote };
    this.#keyOf = key;
    this.#clock = options.clock ?? systemClock;
    this.#core = new RolloutCore(dialectOf(this.#sides), options, options.local !== undefined);
  }

  /**
   * Submits a batch: whole where all of its leads are on one side, else a half on each. Where one half can't be made
   * the other is cancelled and the create fails as that half did.
   */
  async createBatch(
    stage: Stage,
    requests: readonly BatchRequest[],
    options: CreateOptions = {},
  ): Promise<{ id: string }> {
    const id = await this.#core.create(requests, {
      keyOf: (request) => this.#keyOf(request, stage),
      create: async (side, part, share) => {
        const created = await this.#sides[side].createBatch(stage, part, optionsOf(options, side, share));
        return created.id;
      },
    });
    return { id };
  }

  /** Where the batch stands. Of a split one: the sum of both halves. */
  async getBatchStatus(batchId: string, options: CallOptions = {}): Promise<BatchStatus> {
    return this.#core.status(batchId, options);
  }

  /** All results, in the order of the requests. Throws BatchNotEndedError before the end of either half. */
  async getBatchResults(batchId: string, options: ResultsOptions = {}): Promise<BatchResultsResponse> {
    const results: BatchResult[] = [];
    for await (const result of this.#core.results(batchId, options)) results.push(result);
    return { results };
  }

  /** The results one by one, in the order of the requests. */
  streamBatchResults(batchId: string, options: ResultsOptions = {}): AsyncGenerator<BatchResult, void, void> {
    return this.#core.results(batchId, options);
  }

  /** Waits for the end of the batch, of a split one for both halves. Throws WaitTimeoutError after `maxWaitMs`. */
  async waitForBatch(
    batchId: string,
    maxWaitMs: number = DEFAULT_MAX_WAIT_MS,
    options: WaitOptions = {},
  ): Promise<BatchStatus> {
    const { pollIntervalMs: ms, signal, onProgress } = options;
    return waitUntilEnded({
      batchId,
      maxWaitMs,
      schedule: ms === undefined ? BATCH_SCHEDULE : { startMs: ms, factor: 1, capMs: ms },
      clock: this.#clock,
      look: (withinMs) =>
        within(withinMs, signal, (until) => this.getBatchStatus(batchId, { signal: until })),
      onProgress,
      signal,
    });
  }

  /** Stops the batch, both halves of a split one. Throws ConflictError after the end. */
  async cancelBatch(batchId: string, options: CallOptions = {}): Promise<BatchStatus> {
    return this.#core.cancel(batchId, options);
  }

  /** Resolves when the copies are made and the figures noted that were begun on the side. */
  async settled(): Promise<void> {
    return this.#core.settled();
  }

  /** Compares the copies whose batches have ended by now. How many copies are still to be compared. */
  async compareShadows(): Promise<number> {
    return this.#core.compareShadows();
  }
}

const MAX_CUSTOM_ID_CHARS = 256;

function leadOf({ custom_id, metadata }: BatchRequest, stage: Stage): string {
  const leadId: unknown = metadata?.['leadId'];
  if (typeof leadId === 'string' && leadId !== '') return leadId;
  const [head, tail] = ['lead_', `_${stage}`];
  const named = custom_id.startsWith(head) && custom_id.endsWith(tail);
  return (named && custom_id.slice(head.length, -tail.length)) || custom_id;
}

// Each batch under its own keys, since both sides may keep theirs at one place. Nobody waits for a copy, so the caller
// can't abort it, and nobody is told of it.
function optionsOf(options: CreateOptions, side: Side, share: Share): CreateOptions {
  if (share === 'whole') return options;
  const named = { ...options };
  for (const name of ['idempotencyKey', 'uploadKey'] as const) {
    if (named[name] !== undefined) named[name] = `${named[name]}:${share}:${side}`;
  }
  if (share === 'half') return named;
  const { signal, callbackUrl, onUpload, ...copied } = named;
  return copied;
}

function dialectOf(sides: { local: BatchSide; remote: BatchSide }): Dialect<BatchStatus, BatchResult> {
  const room = Object.values(sides).map((side) => side.maxCustomIdChars ?? MAX_CUSTOM_ID_CHARS);
  return {
    sides: { local: routed(sides.local), remote: routed(sides.remote) },
    maxCustomIdChars: Math.min(...room),
    merged: mergedStatus,
    statusOf: (status) => status,
    resultOf: (result) => result,
  };
}

function routed(side: BatchSide): DialectSide<BatchStatus, BatchResult> {
  return {
    status: (id, options) => side.getBatchStatus(id, options),
    results: (id, options) =>
      side.streamBatchResults === undefined
        ? listed(side, id, options)
        : side.streamBatchResults(id, options),
    cancel: async (id, options) => {
      if (side.cancelBatch !== undefined) return side.cancelBatch(id, options);
      throw new ConfigurationError(
        `Failed to cancel batch: the side of ${id} has no cancelBatch`,
        'cancelBatch',
      );
    },
  };
}

async function* listed(
  side: BatchSide,
  id: string,
  options: ResultsOptions,
): AsyncGenerator<BatchResult, void, void> {
  yield* (await side.getBatchResults(id, options)).results;
}

const ORDER: readonly ProcessingStatus[] = ['collected', 'submitted', 'processing', 'ended'];

function mergedStatus(batchId: string, statuses: readonly [BatchStatus, ...BatchStatus[]]): BatchStatus {
  const [first, second] = statuses;
  if (second === undefined) return { ...first, id: batchId };
  const ended = statuses.every((status) => status.processing_status === 'ended');
  const furthest = Math.max(...statuses.map((status) => ORDER.indexOf(status.processing_status)));
  const times = (name: 'created_at' | 'updated_at') => statuses.map((status) => status[name]).sort();
  return {
    id: batchId,
    processing_status: ended
      ? 'ended'
      : (ORDER[Math.min(furthest, ORDER.indexOf('processing'))] ?? 'processing'),
    counts: sumOfCounts(statuses.map((status) => status.counts)),
    created_at: times('created_at')[0] ?? first.created_at,
    updated_at: times('updated_at')[1] ?? first.updated_at,
    ended_at: ended ? ([first.ended_at, second.ended_at].sort()[1] ?? null) : null,
  };
}

function sumOfCounts(parts: readonly BatchCounts[]): BatchCounts {
  const sum: BatchCounts = { total: 0, succeeded: 0, errored: 0, pending: 0 };
  for (const part of parts) {
    for (const [name, times] of Object.entries(part) as [keyof BatchCounts, number][]) {
      sum[name] = (sum[name] ?? 0) + times;
    }
  }
  return sum;
}

/** What `work` gives, or RequestTimeoutError when the time is over; its signal aborts then, or with the caller's. */
async function within<T>(
  ms: number,
  signal: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const stop = new AbortController();
  const onAbort = () => stop.abort(signal?.reason);
  let timer: NodeJS.Timeout | undefined;
  try {
    if (signal?.aborted) onAbort();
    signal?.addEventListener('abort', onAbort, { once: true });
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => {
          reject(
            new RequestTimeoutError(`Failed to get batch status: no answer in ${ms} ms`, {
              type: 'timeout_error',
            }),
          );
          stop.abort();
        },
        Math.min(ms, MAX_TIMER_MS),
      );
    });
    return await Promise.race([work(stop.signal), late]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  }
}

// A longer timer fires at once.
const MAX_TIMER_MS = 2 ** 31 - 1;
