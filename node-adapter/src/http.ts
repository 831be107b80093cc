// One HTTP call with a time limit: every answer is a value, every missing answer a typed error.
import { ConnectionError, RequestTimeoutError } from './errors.js';
import { parseRetryAfterMs } from './retry.js';
import { linkedAbort } from './signals.js';

/** One call. */
export interface HttpCall {
  readonly method: 'GET' | 'POST';
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array;
  /** Limit for the whole answer, its body included. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
  /** How the message of an error begins. */
  readonly failure: string;
}

/** What came back. */
export interface HttpAnswer {
  readonly ok: boolean;
  readonly status: number;
  readonly body: string;
  readonly retryAfterMs: number | undefined;
  readonly requestId: string | undefined;
}

/**
 * Sends the call. Throws ConnectionError or RequestTimeoutError where no answer came, and the signal's reason if the
 * caller aborted.
 */
export async function sendHttp(
  fetchFn: typeof globalThis.fetch,
  call: HttpCall,
  nowMs: () => number,
): Promise<HttpAnswer> {
  call.signal?.throwIfAborted();
  const { controller, unlink } = linkedAbort(call.signal);
  const timer = setTimeout(() => controller.abort(), call.timeoutMs);
  try {
    const response = await fetchFn(call.url, {
      method: call.method,
      headers: call.headers,
      signal: controller.signal,
      ...(call.body === undefined ? {} : { body: call.body }),
    });
    return {
      ok: response.ok,
      status: response.status,
      body: await response.text(),
      retryAfterMs: parseRetryAfterMs(response.headers.get('retry-after'), nowMs()),
      requestId: response.headers.get('x-request-id') ?? undefined,
    };
  } catch (error) {
    if (call.signal?.aborted) throw call.signal.reason;
    if (controller.signal.aborted) {
      const message = `${call.failure}: no answer within ${call.timeoutMs}ms`;
      throw new RequestTimeoutError(message, { type: 'timeout_error' });
    }
    const message = `${call.failure}: no answer (${reasonOf(error)})`;
    throw new ConnectionError(message, { type: 'connection_error', cause: error });
  } finally {
    clearTimeout(timer);
    unlink();
  }
}

// fetch says only "fetch failed"; the reason worth reading is its cause.
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { cause } = error as { cause?: unknown };
  if (!(cause instanceof Error)) return error.message;
  return cause.message === '' && 'code' in cause ? String(cause.code) : cause.message;
}
