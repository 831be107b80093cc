// The client for explicit configuration: each operation of the batch handler as a method.
import { randomUUID } from 'node:crypto';
import { type Clock, systemClock } from './clock.js';
import { ConfigurationError, isConflictError, isNotFoundError } from './errors.js';
import { BATCH_SCHEDULE, type Schedule, waitUntilEnded } from './polling.js';
import { Transport } from './transport.js';
import type {
  BatchList,
  BatchRequest,
  BatchResult,
  BatchResultsResponse,
  BatchStatus,
  CallOptions,
  ClientOptions,
  CreateOptions,
  DeletedBatch,
  HealthReport,
  ListOptions,
  Metrics,
  ResultsOptions,
  RetryOptions,
  Stage,
  WaitOptions,
} from './types.js';
import { errorOfNonsense, isObject, type Operation } from './wire.js';

/** The limit of `waitForBatch` if none is given: 30 minutes, in milliseconds. */
export const DEFAULT_MAX_WAIT_MS = 30 * 60 * 1000;

interface ResultsPage {
  readonly results: BatchResult[];
  readonly next_page: string | null;
}

/** Calls one batch endpoint. Holds no state and no connection: make one, or many. */
export class LlmBatchClient {
  /** The batch endpoint. */
  readonly baseUrl: string;
  // Private fields: neither inspect nor JSON.stringify shows the API key.
  readonly #transport: Transport;
  readonly #clock: Clock;

  /** Throws ConfigurationError if the URL or the key can't be used. */
  constructor(options: ClientOptions) {
    this.baseUrl = checkedUrl(options.baseUrl);
    this.#clock = options.clock ?? systemClock;
    this.#transport = new Transport({
      baseUrl: this.baseUrl,
      apiKey: checkedKey(options.apiKey),
      // Looked up at each call, so that a fetch replaced later (by a test, by tracing) is used.
      fetch: options.fetch ?? ((url, init) => globalThis.fetch(url, init)),
      timeoutMs: options.timeoutMs ?? 90_000,
      operationTimeoutMs: options.operationTimeoutMs ?? 600_000,
      maxRetries: options.maxRetries ?? 5,
      clock: this.#clock,
    });
  }

  /** Submits a batch. Resent under one idempotency key, so it is made once whatever happens on the way. */
  async createBatch(
    stage: Stage,
    requests: readonly BatchRequest[],
    options: CreateOptions = {},
  ): Promise<{ id: string }> {
    const input = {
      stage,
      requests,
      idempotency_key: options.idempotencyKey ?? randomUUID(),
      priority: options.priority,
      expires_in_s: options.expiresInS,
    };
    const output = await this.#transport.call('create', input, { signal: options.signal });
    return { id: shaped<{ id: string }>('create', output, 'id', isText).id };
  }

  /** Where the batch stands: one small call, whatever its size. */
  async getBatchStatus(batchId: string, options: CallOptions = {}): Promise<BatchStatus> {
    const output = await this.#transport.call('status', { id: batchId }, { signal: options.signal });
    return shaped('status', output, 'processing_status', isText);
  }

  /** All results, in the order of the requests. Throws BatchNotEndedError before the end. */
  async getBatchResults(batchId: string, options: ResultsOptions = {}): Promise<BatchResultsResponse> {
    const results: BatchResult[] = [];
    for await (const page of this.#pages(batchId, options)) {
      for (const result of page) results.push(result);
    }
    return { results };
  }

  /** The results one by one, in the order of the requests; holds one page at a time and reads the next when needed. */
  async *streamBatchResults(
    batchId: string,
    options: ResultsOptions = {},
  ): AsyncGenerator<BatchResult, void, void> {
    for await (const page of this.#pages(batchId, options)) yield* page;
  }

  /**
   * Waits for the batch's end and gives its last status. Polls from 1 s, growing by half, up to every 30 s.
   * Throws WaitTimeoutError after `maxWaitMs` milliseconds; the batch itself goes on.
   */
  async waitForBatch(
    batchId: string,
    maxWaitMs: number = DEFAULT_MAX_WAIT_MS,
    options: WaitOptions = {},
  ): Promise<BatchStatus> {
    return waitUntilEnded({
      batchId,
      maxWaitMs,
      schedule: options.pollIntervalMs === undefined ? BATCH_SCHEDULE : steady(options.pollIntervalMs),
      clock: this.#clock,
      look: async (withinMs) => {
        const output = await this.#transport.call(
          'status',
          { id: batchId },
          { signal: options.signal, withinMs },
        );
        return shaped<BatchStatus>('status', output, 'processing_status', isText);
      },
      onProgress: options.onProgress,
      signal: options.signal,
    });
  }

  /** Stops the batch: what has not finished becomes `canceled`. Gives its status. Throws ConflictError after the end. */
  async cancelBatch(batchId: string, options: CallOptions = {}): Promise<BatchStatus> {
    const output = await this.#transport.call(
      'cancel',
      { id: batchId },
      {
        signal: options.signal,
        // The try whose reply was lost may have ended it.
        afterLostReply: (error) =>
          isConflictError(error) ? this.getBatchStatus(batchId, options) : undefined,
      },
    );
    return shaped('cancel', output, 'processing_status', isText);
  }

  /** Deletes an ended batch with all its results. Throws ConflictError before the end. */
  async deleteBatch(batchId: string, options: CallOptions = {}): Promise<DeletedBatch> {
    const deleted: DeletedBatch = { id: batchId, deleted: true };
    const output = await this.#transport.call(
      'delete',
      { id: batchId },
      {
        signal: options.signal,
        // The try whose reply was lost has deleted it.
        afterLostReply: (error) => (isNotFoundError(error) ? deleted : undefined),
      },
    );
    return shaped('delete', output, 'deleted', (value) => value === true);
  }

  /**
   * Makes a new batch of an ended batch's requests that errored or expired. Called again, it gives the same batch.
   * Throws BatchNotEndedError before the end, InvalidRequestError where nothing failed.
   */
  async retryFailed(batchId: string, options: RetryOptions = {}): Promise<{ id: string }> {
    const input = { id: batchId, idempotency_key: options.idempotencyKey };
    const output = await this.#transport.call('retry_failed', input, { signal: options.signal });
    return { id: shaped<{ id: string }>('retry_failed', output, 'id', isText).id };
  }

  /** One page of all batches, newest first. */
  async listBatches(options: ListOptions = {}): Promise<BatchList> {
    const input = { limit: options.limit, page: options.page };
    const output = await this.#transport.call('list', input, { signal: options.signal });
    return shaped('list', output, 'batches', Array.isArray);
  }

  /** Whether the service can do its work. An unready service is an answer, not an error. */
  async checkHealth(options: CallOptions = {}): Promise<HealthReport> {
    const output = await this.#transport.call('health', {}, { signal: options.signal });
    return shaped('health', output, 'ready', (value) => typeof value === 'boolean');
  }

  /** The service's figures. */
  async getMetrics(options: CallOptions = {}): Promise<Metrics> {
    const output = await this.#transport.call('metrics', {}, { signal: options.signal });
    if (!isObject(output)) throw errorOfNonsense('metrics', 'the answer is no object');
    return output;
  }

  async *#pages(batchId: string, options: ResultsOptions): AsyncGenerator<BatchResult[], void, void> {
    const partial = options.partial === true ? true : undefined;
    let page: string | undefined;
    for (;;) {
      const input = { id: batchId, page, partial };
      const output = await this.#transport.call('results', input, { signal: options.signal });
      const answer = shaped<ResultsPage>('results', output, 'results', Array.isArray);
      yield answer.results;
      // An answer without the token is the last page; a token that stands still would never end.
      const next = answer.next_page ?? undefined;
      if (next === undefined) return;
      if (next === page) throw errorOfNonsense('results', `page ${page} names itself as the next one`);
      page = next;
    }
  }
}

function steady(ms: number): Schedule {
  return { startMs: ms, factor: 1, capMs: ms };
}

function isText(value: unknown): boolean {
  return typeof value === 'string';
}

/** `output` as T if its telling field is what it must be; the rest of the shape is the service's promise. */
function shaped<T>(
  operation: Operation,
  output: unknown,
  field: string,
  fits: (value: unknown) => boolean,
): T {
  if (isObject(output) && fits(output[field])) return output as T;
  throw errorOfNonsense(operation, `the answer has no usable "${field}"`);
}

/** The URL without a slash at its end. Throws ConfigurationError. */
export function checkedUrl(baseUrl: string): string {
  let url: URL;
  try {
    url = new URL(baseUrl);
  } catch {
    throw new ConfigurationError(`The batch URL is not a URL: ${baseUrl}`, 'baseUrl');
  }
  if (url.protocol !== 'https:' && url.protocol !== 'http:') {
    throw new ConfigurationError(`The batch URL must begin with https:// or http://: ${baseUrl}`, 'baseUrl');
  }
  return baseUrl.trim().replace(/\/+$/, '');
}

/** The key, trimmed. Throws ConfigurationError. */
export function checkedKey(apiKey: string): string {
  const key = apiKey.trim();
  // A key with a line break in it makes fetch throw an error that quotes the whole header: refuse it here, unquoted.
  if (/^[\x21-\x7e]+$/.test(key)) return key;
  throw new ConfigurationError('The API key is empty or has characters that no key has', 'apiKey');
}
