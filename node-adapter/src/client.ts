// The client for explicit configuration: each operation of the batch handler as a method.
import { type Clock, systemClock } from './clock.js';
import { ConfigurationError, isConflictError, isNotFoundError } from './errors.js';
import { BATCH_SCHEDULE, type Schedule, waitUntilEnded } from './polling.js';
import { linkedAbort } from './signals.js';
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
import { submitBatch } from './upload.js';
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

  /**
   * Submits a batch of any size. What does not fit into one call goes in parts as the requests are produced, three at a
   * time, and only then is the batch made; each call is resent under one key, so it is made once whatever happens on
   * the way. Throws RequestTooLargeError for a request over 4 MB.
   */
  async createBatch(
    stage: Stage | undefined,
    requests: Iterable<BatchRequest> | AsyncIterable<BatchRequest>,
    options: CreateOptions = {},
  ): Promise<{ id: string }> {
    const output = await submitBatch(this.#transport, stage, requests, options);
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

  /** The results one by one, in the order of the requests; reads the next page while this one is taken, and no further. */
  async *streamBatchResults(
    batchId: string,
    options: ResultsOptions = {},
  ): AsyncGenerator<BatchResult, void, void> {
    for await (const page of this.#pages(batchId, options)) {
      // A result that was taken is let go at once: a reader holds what is still to come, not pages.
      page.reverse();
      for (let result = page.pop(); result !== undefined; result = page.pop()) yield result;
    }
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
    const { controller, unlink } = linkedAbort(options.signal);
    const read = (page?: string) => this.#page(batchId, page, options.partial, controller.signal);
    let page: string | undefined;
    let coming = read();
    try {
      for (;;) {
        const { results, next_page } = await coming;
        // An answer without the token is the last page; a token that stands still would never end.
        const next = next_page ?? undefined;
        if (next !== undefined && next === page)
          throw errorOfNonsense('results', `page ${page} names itself as the next one`);
        if (next !== undefined) {
          coming = read(next);
          // A failure is thrown when its page is due.
          coming.catch(() => {});
        }
        yield results;
        if (next === undefined) return;
        page = next;
      }
    } finally {
      controller.abort();
      unlink();
    }
  }

  async #page(
    batchId: string,
    page: string | undefined,
    partial: boolean | undefined,
    signal: AbortSignal,
  ): Promise<ResultsPage> {
    const input = { id: batchId, page, partial: partial === true ? true : undefined };
    const output = await this.#transport.call('results', input, { signal });
    return shaped('results', output, 'results', Array.isArray);
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
  // An environment variable that is not set comes as undefined from JavaScript.
  const key = String(apiKey ?? '').trim();
  // A key with a line break in it makes fetch throw an error that quotes the whole header: refuse it here, unquoted.
  if (/^[\x21-\x7e]+$/.test(key)) return key;
  throw new ConfigurationError('The API key is empty or has characters that no key has', 'apiKey');
}
