// Anthropic's own batches as a side of BatchRouter: a client of its SDK behind the adapter's functions and errors.
import { BatchNotEndedError, ConnectionError, errorClassFor, type LlmBatchError } from '../errors.js';
import type { BatchRequest, BatchResult, BatchStatus, CallOptions, ResultsOptions, Stage } from '../types.js';
import { FAILURE_PREFIX, isObject, type Operation } from '../wire.js';
import { type AnthropicClient, callOptions, MAX_CUSTOM_ID_CHARS, resultOf, statusOf } from './anthropic.js';
import type { BatchSide } from './batchRouter.js';

/** What Anthropic asks for and our requests leave open. */
export interface AnthropicSideOptions {
  /** The managed model of a request: `claude-haiku-4-5`, or by stage. */
  model: string | ((stage: Stage, request: BatchRequest) => string);
  /**
   * Whether to send `temperature`, `top_p` and `top_k`. Default true; false for the API versions that refuse them, from
   * 2026-10-21, which the SDK asks for since its 1.0.
   */
  sampling?: boolean;
}

const DEFAULT_MAX_TOKENS = 2048;
const DEFAULT_TEMPERATURE = 0.2;

// Parameters of our own engine, which Anthropic's API refuses as unknown.
const OURS = new Set([
  'frequency_penalty',
  'ignore_eos',
  'min_p',
  'min_tokens',
  'n',
  'presence_penalty',
  'repetition_penalty',
  'seed',
  'stop',
]);

/**
 * A client of Anthropic's SDK as a side: `anthropicSide(new Anthropic(), { model: 'claude-haiku-4-5' })`.
 * Its errors are the adapter's, with the SDK's as their cause. Anthropic knows no idempotency key: a create whose reply
 * was lost, and which the SDK or the caller repeats, makes two batches.
 */
export function anthropicSide(client: AnthropicClient, options: AnthropicSideOptions): BatchSide {
  return new AnthropicSide(client, options);
}

class AnthropicSide implements BatchSide {
  readonly maxCustomIdChars = MAX_CUSTOM_ID_CHARS;
  readonly #client: AnthropicClient;
  readonly #model: AnthropicSideOptions['model'];
  readonly #sampling: boolean;

  constructor(client: AnthropicClient, { model, sampling = true }: AnthropicSideOptions) {
    this.#client = client;
    this.#model = model;
    this.#sampling = sampling;
  }

  async createBatch(
    stage: Stage,
    requests: readonly BatchRequest[],
    { signal }: CallOptions = {},
  ): Promise<{ id: string }> {
    const body = { requests: requests.map((request) => this.#translated(stage, request)) };
    const { id } = await asked('create', signal, () =>
      this.#client.messages.batches.create(body, callOptions(signal)),
    );
    return { id };
  }

  async getBatchStatus(batchId: string, { signal }: CallOptions = {}): Promise<BatchStatus> {
    return statusOf(
      await asked('status', signal, () =>
        this.#client.messages.batches.retrieve(batchId, null, callOptions(signal)),
      ),
    );
  }

  async getBatchResults(batchId: string, options: ResultsOptions = {}): Promise<{ results: BatchResult[] }> {
    const results: BatchResult[] = [];
    for await (const result of this.streamBatchResults(batchId, options)) results.push(result);
    return { results };
  }

  /** Before the end Anthropic has no results: with `partial` there are none, without it a BatchNotEndedError. */
  async *streamBatchResults(
    batchId: string,
    { signal, partial }: ResultsOptions = {},
  ): AsyncGenerator<BatchResult, void, void> {
    const batches = this.#client.messages.batches;
    const batch = await asked('results', signal, () => batches.retrieve(batchId, null, callOptions(signal)));
    if (batch.processing_status !== 'ended') {
      if (partial === true) return;
      throw new BatchNotEndedError(`${FAILURE_PREFIX.results}: 400 Batch not yet complete`, {
        status: 400,
        type: 'batch_not_ended',
      });
    }
    try {
      for await (const line of await batches.results(batchId, undefined, callOptions(signal)))
        yield resultOf(line);
    } catch (error) {
      throw translatedError('results', signal, error);
    }
  }

  async cancelBatch(batchId: string, { signal }: CallOptions = {}): Promise<BatchStatus> {
    return statusOf(
      await asked('cancel', signal, () =>
        this.#client.messages.batches.cancel(batchId, null, callOptions(signal)),
      ),
    );
  }

  // Only what both dialects know: our own extensions would be refused.
  #translated(stage: Stage, request: BatchRequest) {
    const { response_format, on_invalid, temperature, top_p, top_k, ...params } = request.params;
    const sampling = { temperature: temperature ?? DEFAULT_TEMPERATURE, top_p, top_k };
    const schema = response_format?.type === 'json_schema' ? response_format.json_schema.schema : undefined;
    return {
      custom_id: request.custom_id,
      params: {
        max_tokens: DEFAULT_MAX_TOKENS,
        ...Object.fromEntries(Object.entries(params).filter(([name]) => !OURS.has(name))),
        // A request's own may be a name that is known here only.
        model: typeof this.#model === 'string' ? this.#model : this.#model(stage, request),
        ...(this.#sampling ? sampling : {}),
        ...(schema === undefined ? {} : { output_config: { format: { type: 'json_schema', schema } } }),
      },
    };
  }
}

async function asked<T>(
  operation: Operation,
  signal: AbortSignal | undefined,
  call: () => PromiseLike<T>,
): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw translatedError(operation, signal, error);
  }
}

// The SDK's errors have a status, and the body's own error inside; without a status no answer came.
function translatedError(operation: Operation, signal: AbortSignal | undefined, error: unknown): unknown {
  if (signal?.aborted) return signal.reason;
  if (!(error instanceof Error)) return error;
  const { status, message, requestID } = error as Error & { status?: unknown; requestID?: unknown };
  const type = typeOf(error);
  const prefix = FAILURE_PREFIX[operation];
  if (typeof status !== 'number') {
    return new ConnectionError(`${prefix}: ${message}`, { type: 'connection_error', cause: error });
  }
  const ErrorClass: new (...parts: ConstructorParameters<typeof LlmBatchError>) => LlmBatchError =
    errorClassFor(status, type);
  return new ErrorClass(`${prefix}: ${message}`, {
    status,
    type,
    requestId: typeof requestID === 'string' ? requestID : undefined,
    cause: error,
  });
}

function typeOf(error: object): string {
  const body: unknown = 'error' in error ? error.error : undefined;
  const inner = isObject(body) && isObject(body['error']) ? body['error']['type'] : undefined;
  return typeof inner === 'string' ? inner : 'api_error';
}
