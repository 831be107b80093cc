// Reading what RunPod and the batch handler answer. Tolerant: an edge may answer HTML, an error may be any text.
import { EndpointNotFoundError, errorClassFor, type LlmBatchError, ServerError } from './errors.js';

/** The operations of the batch handler that the adapter uses. */
export type Operation =
  | 'create'
  | 'upload'
  | 'status'
  | 'results'
  | 'cancel'
  | 'delete'
  | 'retry_failed'
  | 'list'
  | 'health'
  | 'metrics';

/** How the message of a failed operation begins. Callers match these words. */
export const FAILURE_PREFIX: Readonly<Record<Operation, string>> = {
  create: 'Failed to create batch',
  upload: 'Failed to create batch',
  status: 'Failed to get batch status',
  results: 'Failed to get batch results',
  cancel: 'Failed to cancel batch',
  delete: 'Failed to delete batch',
  retry_failed: 'Failed to retry batch',
  list: 'Failed to list batches',
  health: 'Failed to check health',
  metrics: 'Failed to get metrics',
};

/** A RunPod job as the queue reports it. */
export interface Job {
  readonly id: string | undefined;
  readonly state: 'pending' | 'completed' | 'failed';
  readonly output: unknown;
  readonly error: unknown;
}

/** The body of a call. */
export function bodyOf(operation: Operation, input: Readonly<Record<string, unknown>>): string {
  return JSON.stringify({ input: { operation, ...input } });
}

/** The text before and after the list of requests in the body of a call that has one beside its `input`. */
export function frameOf(operation: Operation, input: Readonly<Record<string, unknown>>): [string, string] {
  return [`${bodyOf(operation, input).slice(0, -2)},"requests":`, '}}'];
}

type Fields = Readonly<Record<string, unknown>>;

// An error page must not fill the caller's logs.
const MAX_BODY_CHARS = 2_000;

/** Parsed JSON object, or undefined for anything else. */
export function parseObject(text: string): Fields | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

export function isObject(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The job in a 200 answer, or undefined if it is none. */
export function parseJob(text: string): Job | undefined {
  const fields = parseObject(text);
  const status = fields?.['status'];
  if (fields === undefined || typeof status !== 'string') return undefined;
  const { id, output, error } = fields;
  return { id: typeof id === 'string' ? id : undefined, state: stateOf(status), output, error };
}

function stateOf(status: string): Job['state'] {
  if (status === 'COMPLETED') return 'completed';
  return ['FAILED', 'CANCELLED', 'TIMED_OUT'].includes(status) ? 'failed' : 'pending';
}

/** The error for an HTTP answer that is not 2xx: RunPod's own, or a proxy's. */
export function errorOfHttp(
  operation: Operation,
  answer: { status: number; body: string; retryAfterMs: number | undefined; requestId: string | undefined },
): LlmBatchError {
  const { status, body, retryAfterMs, requestId } = answer;
  const named = namedError(body);
  const ErrorClass = status === 404 ? EndpointNotFoundError : errorClassFor(status, named?.type ?? '');
  const type = status === 404 ? 'endpoint_not_found_error' : (named?.type ?? typeOfStatus(status));
  return new ErrorClass(failureMessage(operation, status, body), {
    status,
    type,
    param: named?.param,
    requestId: named?.requestId ?? requestId,
    retryAfterMs,
  });
}

/**
 * The error for a job that failed. `error` is normally the handler's JSON as a string; whatever else it is (a lost
 * worker's notice, a traceback) counts as the service's fault. `shown` makes of its text what the caller may see.
 */
export function errorOfJob(operation: Operation, job: Job, shown: (text: string) => string): LlmBatchError {
  const body = shown(typeof job.error === 'string' ? job.error : (JSON.stringify(job.error) ?? 'job failed'));
  const named = namedError(body);
  const status = named?.status ?? 500;
  const ErrorClass = errorClassFor(status, named?.type ?? '');
  return new ErrorClass(failureMessage(operation, status, body), {
    status,
    type: named?.type ?? 'api_error',
    param: named?.param,
    requestId: named?.requestId ?? job.id,
  });
}

/** The error for an answer that says success but is not what the operation answers. */
export function errorOfNonsense(operation: Operation, what: string): LlmBatchError {
  return new ServerError(failureMessage(operation, 502, what), { status: 502, type: 'api_error' });
}

function failureMessage(operation: Operation, status: number, body: string): string {
  const shown = body.length > MAX_BODY_CHARS ? `${body.slice(0, MAX_BODY_CHARS)}...` : body;
  return `${FAILURE_PREFIX[operation]}: ${status} ${shown}`;
}

/** `{"type":"error","status_code","error":{"type","message","param"},"request_id"}`, or undefined for other text. */
function namedError(body: string) {
  const fields = parseObject(body);
  const error = fields?.['error'];
  if (fields === undefined || !isObject(error) || typeof error['type'] !== 'string') return undefined;
  return {
    type: error['type'],
    param: textOf(error['param']),
    requestId: textOf(fields['request_id']),
    status: typeof fields['status_code'] === 'number' ? fields['status_code'] : undefined,
  };
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

function typeOfStatus(status: number): string {
  const types: Readonly<Record<number, string>> = {
    401: 'authentication_error',
    403: 'permission_error',
    408: 'timeout_error',
    409: 'conflict_error',
    413: 'request_too_large',
    429: 'rate_limit_error',
  };
  return types[status] ?? (status >= 500 ? 'api_error' : 'invalid_request_error');
}
