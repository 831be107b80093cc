// The error tree and how an answer becomes one of its errors.
//
// LlmBatchError
// ├── ConfigurationError          the adapter was not told where the service is, or was told nonsense
// ├── InvalidRequestError         400, 422: the caller must change the call
// │   ├── BatchNotEndedError      results were asked for before the end: wait
// │   └── RequestTooLargeError    413, or found too large before sending
// ├── AuthenticationError         401: the API key
// ├── PermissionDeniedError       403
// ├── NotFoundError               404: no such batch, or it has expired
// ├── EndpointNotFoundError       404 of RunPod itself: the URL names no endpoint
// ├── ConflictError               409: the batch's state, or its idempotency key, forbids it
// ├── RateLimitError              429, after all retries
// ├── ServerError                 5xx or a nonsense answer, after all retries
// ├── SignatureError              a callback that the service did not send, or not now
// ├── ConnectionError             no answer at all, after all retries
// │   └── RequestTimeoutError     none in time
// └── WaitTimeoutError            waitForBatch's limit; the batch itself goes on
//
// An app can load the package twice, as an ES module and as CommonJS. `instanceof` fails across the copies, so every
// class marks its prototype with a registered symbol, and the isXxx guards look for that mark. The declared names keep
// the types apart, which TypeScript would take for one: a guard that says no must not rule out the other classes.

/** What an error is made of. */
export interface ErrorParts {
  status?: number | undefined;
  type: string;
  param?: string | undefined;
  requestId?: string | undefined;
  retryAfterMs?: number | undefined;
  cause?: unknown;
}

const brandOf = (name: string) => Symbol.for(`llm-batch-adapter.${name}`);

function brand(errorClass: { prototype: object }, name: string): void {
  Object.defineProperty(errorClass.prototype, 'name', { value: name, configurable: true, writable: true });
  Object.defineProperty(errorClass.prototype, brandOf(name), { value: true });
}

function guard<E extends LlmBatchError>(name: string): (error: unknown) => error is E {
  const mark = brandOf(name);
  return (error): error is E => typeof error === 'object' && error !== null && mark in error;
}

/** Root of all errors of the adapter. */
export class LlmBatchError extends Error {
  /** The HTTP status, of the service or of RunPod; undefined if there was no answer. */
  readonly status: number | undefined;
  /** A word for programs, such as `invalid_request_error`. */
  readonly type: string;
  /** The field at fault, such as `requests[3].custom_id`. */
  readonly param: string | undefined;
  /** The service's name for the call: find it in its logs. */
  readonly requestId: string | undefined;
  /** How long the server asked to wait, in milliseconds. */
  readonly retryAfterMs: number | undefined;

  static {
    brand(LlmBatchError, 'LlmBatchError');
  }

  constructor(message: string, parts: ErrorParts) {
    super(message);
    // Set as the constructor's own option would, which an app that compiles these files for ES2020 doesn't know.
    if (parts.cause !== undefined) {
      Object.defineProperty(this, 'cause', { value: parts.cause, writable: true, configurable: true });
    }
    this.status = parts.status;
    this.type = parts.type;
    this.param = parts.param;
    this.requestId = parts.requestId;
    this.retryAfterMs = parts.retryAfterMs;
  }
}

/** The adapter was not told where the service is, or was told nonsense. */
export class ConfigurationError extends LlmBatchError {
  declare readonly name: 'ConfigurationError';

  static {
    brand(ConfigurationError, 'ConfigurationError');
  }

  constructor(message: string, param?: string) {
    super(message, { type: 'configuration_error', param });
  }
}

/** The call is wrong; sending it again gives the same answer. `param` names the field. */
export class InvalidRequestError extends LlmBatchError {
  declare readonly name: 'InvalidRequestError' | 'BatchNotEndedError' | 'RequestTooLargeError';

  static {
    brand(InvalidRequestError, 'InvalidRequestError');
  }
}

/** Results were asked for before the batch's end. */
export class BatchNotEndedError extends InvalidRequestError {
  declare readonly name: 'BatchNotEndedError';

  static {
    brand(BatchNotEndedError, 'BatchNotEndedError');
  }
}

/** The call is larger than the service takes. */
export class RequestTooLargeError extends InvalidRequestError {
  declare readonly name: 'RequestTooLargeError';

  static {
    brand(RequestTooLargeError, 'RequestTooLargeError');
  }
}

/** The API key is missing or wrong. */
export class AuthenticationError extends LlmBatchError {
  declare readonly name: 'AuthenticationError';

  static {
    brand(AuthenticationError, 'AuthenticationError');
  }
}

/** The API key may not do this. */
export class PermissionDeniedError extends LlmBatchError {
  declare readonly name: 'PermissionDeniedError';

  static {
    brand(PermissionDeniedError, 'PermissionDeniedError');
  }
}

/** No such batch, or its results have expired. */
export class NotFoundError extends LlmBatchError {
  declare readonly name: 'NotFoundError';

  static {
    brand(NotFoundError, 'NotFoundError');
  }
}

/** RunPod knows no endpoint under the URL; says nothing about any batch. */
export class EndpointNotFoundError extends LlmBatchError {
  declare readonly name: 'EndpointNotFoundError';

  static {
    brand(EndpointNotFoundError, 'EndpointNotFoundError');
  }
}

/** The batch's state forbids it, or the idempotency key belongs to a batch with another body. */
export class ConflictError extends LlmBatchError {
  declare readonly name: 'ConflictError';

  static {
    brand(ConflictError, 'ConflictError');
  }
}

/** Too many calls, after all retries. */
export class RateLimitError extends LlmBatchError {
  declare readonly name: 'RateLimitError';

  static {
    brand(RateLimitError, 'RateLimitError');
  }
}

/** The service or RunPod failed, after all retries. */
export class ServerError extends LlmBatchError {
  declare readonly name: 'ServerError';

  static {
    brand(ServerError, 'ServerError');
  }
}

/** No answer came, after all retries. */
export class ConnectionError extends LlmBatchError {
  declare readonly name: 'ConnectionError' | 'RequestTimeoutError';

  static {
    brand(ConnectionError, 'ConnectionError');
  }
}

/** No answer came in time, after all retries. */
export class RequestTimeoutError extends ConnectionError {
  declare readonly name: 'RequestTimeoutError';

  static {
    brand(RequestTimeoutError, 'RequestTimeoutError');
  }
}

/** A callback was not sent by the service, was changed on its way, or is an old one. */
export class SignatureError extends LlmBatchError {
  declare readonly name: 'SignatureError';

  static {
    brand(SignatureError, 'SignatureError');
  }

  constructor(message: string) {
    super(message, { type: 'signature_error' });
  }
}

/** `waitForBatch` reached its limit. The batch goes on: wait again. */
export class WaitTimeoutError extends LlmBatchError {
  declare readonly name: 'WaitTimeoutError';

  static {
    brand(WaitTimeoutError, 'WaitTimeoutError');
  }

  constructor(batchId: string, maxWaitMs: number, cause?: unknown) {
    super(`Batch ${batchId} did not complete within ${maxWaitMs}ms`, { type: 'wait_timeout', cause });
  }
}

export const isLlmBatchError = guard<LlmBatchError>('LlmBatchError');
export const isConfigurationError = guard<ConfigurationError>('ConfigurationError');
export const isInvalidRequestError = guard<InvalidRequestError>('InvalidRequestError');
export const isBatchNotEndedError = guard<BatchNotEndedError>('BatchNotEndedError');
export const isRequestTooLargeError = guard<RequestTooLargeError>('RequestTooLargeError');
export const isAuthenticationError = guard<AuthenticationError>('AuthenticationError');
export const isPermissionDeniedError = guard<PermissionDeniedError>('PermissionDeniedError');
export const isNotFoundError = guard<NotFoundError>('NotFoundError');
export const isEndpointNotFoundError = guard<EndpointNotFoundError>('EndpointNotFoundError');
export const isConflictError = guard<ConflictError>('ConflictError');
export const isRateLimitError = guard<RateLimitError>('RateLimitError');
export const isServerError = guard<ServerError>('ServerError');
export const isConnectionError = guard<ConnectionError>('ConnectionError');
export const isRequestTimeoutError = guard<RequestTimeoutError>('RequestTimeoutError');
export const isSignatureError = guard<SignatureError>('SignatureError');
export const isWaitTimeoutError = guard<WaitTimeoutError>('WaitTimeoutError');

/** Whether the same call may work later. */
export function isRetryable(error: unknown): error is LlmBatchError {
  if (isServerError(error) || isRateLimitError(error) || isConnectionError(error)) return true;
  return isLlmBatchError(error) && error.status === 408;
}

type ErrorClass = new (message: string, parts: ErrorParts) => LlmBatchError;

const CLASS_BY_STATUS: ReadonlyMap<number, ErrorClass> = new Map<number, ErrorClass>([
  [401, AuthenticationError],
  [403, PermissionDeniedError],
  [404, NotFoundError],
  [409, ConflictError],
  [413, RequestTooLargeError],
  [429, RateLimitError],
]);

/** The class for an error answer. The type decides only where one status has several. */
export function errorClassFor(status: number, type: string): ErrorClass {
  if (type === 'batch_not_ended') return BatchNotEndedError;
  return CLASS_BY_STATUS.get(status) ?? (status >= 500 ? ServerError : InvalidRequestError);
}
