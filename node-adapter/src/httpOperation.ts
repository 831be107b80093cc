// The operation `http`: a whole HTTP request in, a whole HTTP response out.
import type { Clock } from './clock.js';
import { isEndpointNotFoundError, type LlmBatchError } from './errors.js';
import { parseRetryAfterMs, retryDelayMs } from './retry.js';
import type { Transport } from './transport.js';
import { errorOfNonsense, isObject } from './wire.js';

/** Values by name. */
export type Fields = Readonly<Record<string, string>>;

/** The operation's input; names of headers are in lower case. */
export interface HttpRequest {
  readonly method: string;
  readonly path: string;
  readonly query: Fields;
  readonly headers: Fields;
  readonly body?: string;
}

/** The operation's output: an answer of the service, whatever its status. */
export interface HttpAnswer {
  readonly status: number;
  readonly headers: Fields;
  readonly body: string;
}

/** What the operation is called with. */
export interface HttpOperationSettings {
  readonly transport: Transport;
  readonly clock: Clock;
  readonly maxRetries: number;
  readonly operationTimeoutMs: number;
}

/** Calls the operation. */
export class HttpOperation {
  readonly #settings: HttpOperationSettings;

  constructor(settings: HttpOperationSettings) {
    this.#settings = settings;
  }

  /** The service's answer. Throws one of the errors of errors.ts where RunPod gave none, after all retries. */
  async call(request: HttpRequest, signal: AbortSignal | undefined): Promise<HttpAnswer> {
    const output = await this.#settings.transport.call('http', { ...request }, { signal });
    return answerOf(output);
  }

  /** The same, where nobody else would retry a 429 or 5xx of the service. The request must be safe to repeat. */
  async callPatiently(request: HttpRequest, signal: AbortSignal | undefined): Promise<HttpAnswer> {
    const { clock, maxRetries, operationTimeoutMs } = this.#settings;
    const deadline = clock.now() + operationTimeoutMs;
    for (let failures = 1; ; failures += 1) {
      const answer = await this.call(request, signal);
      if (answer.status !== 429 && answer.status < 500) return answer;
      const delayMs = retryDelayMs({
        failures,
        maxRetries,
        retryAfterMs: parseRetryAfterMs(answer.headers['retry-after'] ?? null, clock.now()),
        remainingMs: deadline - clock.now(),
        random: clock.random(),
      });
      if (delayMs === null) return answer;
      await clock.sleep(delayMs, signal);
    }
  }
}

function answerOf(output: unknown): HttpAnswer {
  if (isObject(output)) {
    const { status_code: status, headers, body } = output;
    if (typeof status === 'number' && isObject(headers) && typeof body === 'string') {
      return { status, headers: headers as Fields, body };
    }
  }
  throw errorOfNonsense('http', 'the answer is no HTTP response');
}

const TYPE_BY_STATUS: Readonly<Record<number, string>> = {
  401: 'authentication_error',
  403: 'permission_error',
  413: 'request_too_large',
  429: 'rate_limit_error',
  529: 'overloaded_error',
};

/** The answer that stands for a fault of RunPod, in Anthropic's shape. All retries are over: nobody need try again. */
export function answerOfFault(error: LlmBatchError & { readonly status: number }): HttpAnswer {
  const { requestId, retryAfterMs } = error;
  // An endpoint that RunPod doesn't know says nothing about any batch, and neither does what is no error at all.
  const status = isEndpointNotFoundError(error) || error.status < 400 ? 502 : error.status;
  const answer = errorAnswer(status, TYPE_BY_STATUS[status], error.message);
  return {
    ...answer,
    headers: {
      ...answer.headers,
      'x-should-retry': 'false',
      ...(requestId === undefined ? {} : { 'request-id': requestId }),
      ...(retryAfterMs === undefined ? {} : { 'retry-after': String(Math.ceil(retryAfterMs / 1000)) }),
    },
  };
}

/** An error in Anthropic's shape. */
export function errorAnswer(
  status: number,
  type = status >= 500 ? 'api_error' : 'invalid_request_error',
  message = '',
): HttpAnswer {
  const body = JSON.stringify({ type: 'error', error: { type, message } });
  return { status, headers: { 'content-type': 'application/json' }, body };
}
