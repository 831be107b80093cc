// How a command ends: its exit codes, its own errors, and what is said of an error.
import {
  isAuthenticationError,
  isConfigurationError,
  isConflictError,
  isInvalidRequestError,
  isLlmBatchError,
  isNotFoundError,
  isPermissionDeniedError,
  isWaitTimeoutError,
  type LlmBatchError,
} from '../errors.js';
import { isObject, parseObject } from '../wire.js';

/** The exit codes; docs/cli.md lists them. */
export const EXIT = {
  ok: 0,
  failures: 1,
  usage: 2,
  service: 3,
  notFound: 4,
  timeout: 5,
  internal: 70,
  interrupted: 130,
  brokenPipe: 141,
  terminated: 143,
} as const;

/** The command line is wrong, or a file that it names. */
export class UsageError extends Error {}

/** A line of an input file is wrong: `file.jsonl:17: what`. */
export class InputError extends Error {
  constructor(file: string, line: number, what: string) {
    super(`${file}:${line}: ${what}`);
  }
}

/** Somebody ended the command: a signal, or the reader of its output went away. */
export class Stopped extends Error {
  constructor(
    readonly exitCode: number,
    message: string,
  ) {
    super(message);
  }
}

/** The exit code that tells a script what went wrong. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof Stopped) return error.exitCode;
  if (error instanceof UsageError || error instanceof InputError) return EXIT.usage;
  if (isWaitTimeoutError(error)) return EXIT.timeout;
  if (isNotFoundError(error)) return EXIT.notFound;
  if (isConfigurationError(error) || isInvalidRequestError(error) || isConflictError(error))
    return EXIT.usage;
  if (isLlmBatchError(error)) return EXIT.service;
  if (!isSystemError(error)) return EXIT.internal;
  return error.code === 'EPIPE' ? EXIT.brokenPipe : EXIT.usage;
}

/** The sentence in an error, without the words that say which call failed. */
export function sentenceOf(error: Error): string {
  return innerMessage(error) ?? error.message;
}

/** What went wrong, in a line for people. */
export function messageOf(error: unknown): string {
  if (!isLlmBatchError(error)) return error instanceof Error ? error.message : String(error);
  const id = error.requestId === undefined ? '' : ` (request ${error.requestId})`;
  return `${bareMessage(error)}${id}${adviceFor(error)}`;
}

/** What went wrong, for programs. */
export function errorFields(error: unknown): Record<string, unknown> {
  const exit_code = exitCodeOf(error);
  if (!isLlmBatchError(error)) return { type: typeOf(error), message: messageOf(error), exit_code };
  const { type, status, param, requestId } = error;
  return { type, message: bareMessage(error), status, param, request_id: requestId, exit_code };
}

function typeOf(error: unknown): string {
  if (error instanceof Stopped) return 'stopped';
  if (error instanceof InputError) return 'input_error';
  return exitCodeOf(error) === EXIT.internal ? 'internal_error' : 'usage_error';
}

function bareMessage(error: LlmBatchError): string {
  const inner = innerMessage(error);
  return inner === undefined
    ? error.message
    : `${error.message.slice(0, error.message.indexOf('{'))}${inner}`;
}

// The service's error comes as JSON in the message, behind words that say which call failed.
function innerMessage(error: Error): string | undefined {
  const start = error.message.indexOf('{');
  const inner = start < 0 ? undefined : parseObject(error.message.slice(start))?.['error'];
  return isObject(inner) && typeof inner['message'] === 'string' ? inner['message'] : undefined;
}

function adviceFor(error: LlmBatchError): string {
  if (isAuthenticationError(error) || isPermissionDeniedError(error)) {
    return '\nRUNPOD_API_KEY must hold a key of the account that owns the endpoint.';
  }
  if (error.type === 'endpoint_not_found_error') {
    return '\nLOCAL_BATCH_URL (or --url) must be https://api.runpod.ai/v2/<id of the batch endpoint>.';
  }
  return '';
}

function isSystemError(error: unknown): error is Error & { code: string } {
  return error instanceof Error && 'code' in error;
}
