// A `fetch` for Anthropic's official SDK: each HTTP request of the SDK becomes an operation `http` of the batch endpoint.
//
// The host of the SDK's URL is never called. It travels as the `host` header, so that a `results_url` leads back through
// here. Few headers travel, and the SDK's own API key never does.
//
// Who retries: faults of RunPod are retried here, and what is left of them is answered with `x-should-retry: false`;
// answers of the service are passed on, and the SDK retries them as it would Anthropic's. What the SDK can't repeat by
// itself, a page of results or a part of a batch, is retried here whatever failed.
import { Buffer } from 'node:buffer';
import { createHash, randomUUID } from 'node:crypto';
import { checkedKey, checkedUrl } from './client.js';
import { type Clock, systemClock } from './clock.js';
import { createInParts } from './createInParts.js';
import { CreateKeys } from './createKeys.js';
import { isLlmBatchError, type LlmBatchError } from './errors.js';
import {
  answerOfFault,
  type Fields,
  type HttpAnswer,
  HttpOperation,
  type HttpRequest,
} from './httpOperation.js';
import { PART_MAX_BYTES } from './parts.js';
import { Transport } from './transport.js';
import { errorOfHttp, errorOfNonsense } from './wire.js';

/** How to reach the batch endpoint. */
export interface RunpodFetchOptions {
  /** The batch endpoint, such as `https://api.runpod.ai/v2/abc123`. */
  readonly batchUrl: string;
  /** The RunPod API key. It is sent to `batchUrl` and nowhere else. */
  readonly apiKey: string;
  /** What sends the calls; the global fetch by default. */
  readonly fetch?: typeof globalThis.fetch;
  /** Limit for one HTTP call to RunPod, in milliseconds; 90,000 by default. */
  readonly timeoutMs?: number;
  /** Limit for one operation with all its retries here, in milliseconds; 600,000 by default. */
  readonly operationTimeoutMs?: number;
  /** How often a passing fault is retried here; 5 by default. */
  readonly maxRetries?: number;
  /** Time and chance, for tests. */
  readonly clock?: Clock;
}

/**
 * A `fetch` to build Anthropic's client with: `new Anthropic({ apiKey: 'unused', fetch: runpodFetch({ ... }) })`.
 * Throws ConfigurationError if the URL or the key can't be used.
 */
export function runpodFetch(options: RunpodFetchOptions): typeof globalThis.fetch {
  const gateway = new Gateway(options);
  return async (input, init = {}) => gateway.answer(await callOf(input, init));
}

const BATCHES = '/v1/messages/batches';
const NEXT_PAGE = 'x-next-page';
const FORWARDED = /^(accept|content-type|idempotency-key|anthropic-.*|x-batch-.*)$/;

/** A request of the SDK. */
interface SdkCall {
  readonly request: HttpRequest;
  /** Whether the SDK sends it again because it failed before. */
  readonly isRetry: boolean;
  readonly signal: AbortSignal | undefined;
}

class Gateway {
  readonly #operation: HttpOperation;
  readonly #createKeys: CreateKeys;

  constructor(options: RunpodFetchOptions) {
    const { clock = systemClock, maxRetries = 5, operationTimeoutMs = 600_000 } = options;
    // Looked up at each call, so that a fetch replaced later (by a test, by tracing) is used.
    const send = options.fetch ?? ((url, init) => globalThis.fetch(url, init));
    const transport = new Transport({
      baseUrl: checkedUrl(options.batchUrl),
      apiKey: checkedKey(options.apiKey),
      // A redirect could lead to another host.
      fetch: (url, init) => send(url, { ...init, redirect: 'error' }),
      timeoutMs: options.timeoutMs ?? 90_000,
      operationTimeoutMs,
      maxRetries,
      clock,
    });
    this.#operation = new HttpOperation({ transport, clock, maxRetries, operationTimeoutMs });
    this.#createKeys = new CreateKeys(() => clock.now());
  }

  async answer(call: SdkCall): Promise<Response> {
    const { request, signal } = call;
    try {
      const isCreate = request.method === 'POST' && request.path === BATCHES;
      const answer = isCreate ? await this.#create(call) : await this.#operation.call(request, signal);
      return responseOf(answer, answer.headers[NEXT_PAGE] ? this.#pages(call, answer) : answer.body);
    } catch (error) {
      // Where no answer came at all, the SDK has errors of its own.
      if (!hasStatus(error)) throw error;
      const answer = answerOfFault(error);
      return responseOf(answer, answer.body);
    }
  }

  async #create({ request, isRetry, signal }: SdkCall): Promise<HttpAnswer> {
    const { headers, body = '' } = request;
    const fingerprint = createHash('sha256').update(JSON.stringify(headers)).update(body).digest('hex');
    const key =
      headers['idempotency-key'] ??
      (isRetry ? this.#createKeys.take(fingerprint) : undefined) ??
      randomUUID();
    const create = { ...request, headers: { ...headers, 'idempotency-key': key }, body };
    let made = false;
    try {
      const answer =
        Buffer.byteLength(body) > PART_MAX_BYTES
          ? await createInParts(this.#operation, create, key, signal)
          : await this.#operation.call(create, signal);
      made = answer.status < 300;
      return answer;
    } finally {
      if (!made) this.#createKeys.keep(fingerprint, key);
    }
  }

  /** The first page and all that follow, as one body: each is fetched when the one before has been read. */
  #pages({ request, signal }: SdkCall, first: HttpAnswer): ReadableStream<Uint8Array> {
    const encoder = new TextEncoder();
    const reading = new AbortController();
    const abort = () => reading.abort(signal?.reason);
    signal?.addEventListener('abort', abort, { once: true });
    let token: string | undefined;
    const pull = async (controller: ReadableStreamDefaultController<Uint8Array>) => {
      const page = token === undefined ? first : await this.#page(request, token, reading.signal);
      controller.enqueue(encoder.encode(page.body));
      const next = page.headers[NEXT_PAGE];
      if (next !== undefined && next !== token) {
        token = next;
        return;
      }
      signal?.removeEventListener('abort', abort);
      // A token that stands still would never end.
      if (next !== undefined) throw errorOfNonsense('http', `page ${token} names itself as the next one`);
      controller.close();
    };
    const cancel = (reason: unknown) => reading.abort(reason);
    // Nothing is fetched before somebody reads.
    return new ReadableStream({ pull, cancel }, { highWaterMark: 0 });
  }

  async #page(request: HttpRequest, token: string, signal: AbortSignal): Promise<HttpAnswer> {
    const query = { ...request.query, page: token };
    const answer = await this.#operation.callPatiently({ ...request, query }, signal);
    if (answer.status === 200) return answer;
    throw errorOfHttp('http', {
      ...answer,
      retryAfterMs: undefined,
      requestId: answer.headers['request-id'],
    });
  }
}

async function callOf(input: Parameters<typeof globalThis.fetch>[0], init: RequestInit): Promise<SdkCall> {
  const given = input instanceof Request ? input : undefined;
  const url = new URL(given?.url ?? String(input));
  const headers = new Headers(init.headers ?? given?.headers);
  const body = init.body ?? given?.body ?? null;
  const request = {
    method: (init.method ?? given?.method ?? 'GET').toUpperCase(),
    // The client's base URL may have a path of its own.
    path: url.pathname.slice(Math.max(0, url.pathname.lastIndexOf('/v1/'))),
    query: Object.fromEntries(url.searchParams),
    headers: forwarded(headers, url),
    ...(body === null ? {} : { body: typeof body === 'string' ? body : await new Response(body).text() }),
  };
  const isRetry = Number(headers.get('x-stainless-retry-count') ?? 0) > 0;
  return { request, isRetry, signal: init.signal ?? given?.signal ?? undefined };
}

function forwarded(headers: Headers, url: URL): Fields {
  const kept = [...headers].filter(([name]) => FORWARDED.test(name));
  return {
    ...Object.fromEntries(kept),
    host: url.host,
    'x-forwarded-proto': url.protocol.replace(':', ''),
  };
}

function responseOf({ status, headers }: HttpAnswer, body: string | ReadableStream<Uint8Array>): Response {
  const { [NEXT_PAGE]: _, ...shown } = headers;
  return new Response(status === 204 ? null : body, { status, headers: shown });
}

function hasStatus(error: unknown): error is LlmBatchError & { readonly status: number } {
  return isLlmBatchError(error) && error.status !== undefined;
}
