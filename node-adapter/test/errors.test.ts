import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import * as errors from '../src/errors.js';
import type { Operation } from '../src/wire.js';
import { FAILURE_PREFIX } from '../src/wire.js';
import { refused } from './support/fakeRunpod.js';
import { BATCH_ID, errorOf, heavyRequest, setUp } from './support/setup.js';

const requireCopy = createRequire(import.meta.url);

test('guards know the errors of another copy of the package, where instanceof does not', () => {
  const other: typeof errors = requireCopy('llm-batch-adapter');
  const error = new other.BatchNotEndedError('x', { type: 'batch_not_ended', status: 400 });
  assert.ok(!(error instanceof errors.LlmBatchError));
  assert.ok(errors.isBatchNotEndedError(error));
  assert.ok(errors.isInvalidRequestError(error));
  assert.ok(errors.isLlmBatchError(error));
  assert.ok(!errors.isNotFoundError(error));
});

test('a guard that says no leaves the other classes to the guards after it', () => {
  const error: unknown = new errors.RateLimitError('x', { type: 'rate_limit_error', status: 429 });
  assert.ok(errors.isLlmBatchError(error));
  // The type check of this file is half of the test: without names of their own, `error` would be `never` here.
  if (errors.isNotFoundError(error)) assert.fail();
  assert.equal(error.status, 429);
});

test('guards say no to whatever else is thrown', () => {
  for (const thrown of [undefined, null, 'text', 42, {}, new Error('x'), new TypeError('y')]) {
    assert.equal(errors.isLlmBatchError(thrown), false);
  }
});

test('every class is an Error with its own name and guard', () => {
  const exported = new Map<string, unknown>(Object.entries(errors));
  const classes = [...exported].filter(([name]) => name.endsWith('Error') && !name.startsWith('is'));
  assert.ok(classes.length >= 15);
  for (const [name, value] of classes) {
    const ErrorClass = value as new (message: string, parts: errors.ErrorParts) => errors.LlmBatchError;
    const guard = exported.get(`is${name}`) as (error: unknown) => boolean;
    const error = new ErrorClass('a message', { type: 't' });
    assert.ok(error instanceof Error);
    assert.equal(error.name, name);
    assert.equal(guard(error), true, `is${name}`);
    assert.ok(error.stack?.includes('errors.test'), 'the stack shows where it came from');
  }
});

test('every status has its class', () => {
  const expected: Record<number, string> = {
    400: 'InvalidRequestError',
    401: 'AuthenticationError',
    403: 'PermissionDeniedError',
    404: 'NotFoundError',
    409: 'ConflictError',
    413: 'RequestTooLargeError',
    422: 'InvalidRequestError',
    429: 'RateLimitError',
    500: 'ServerError',
    503: 'ServerError',
    529: 'ServerError',
  };
  for (const [status, name] of Object.entries(expected)) {
    assert.equal(errors.errorClassFor(Number(status), 'any').name, name, status);
  }
});

test('every operation fails under its own prefix', async (t) => {
  const { client } = await setUp(t, () => refused(400, 'invalid_request_error', 'no'));
  // The client has a method for each but the whole HTTP request, which runpodFetch sends.
  const run: Record<Exclude<Operation, 'http'>, () => Promise<unknown>> = {
    create: () => client.createBatch('email', []),
    upload: () => client.createBatch('email', [heavyRequest('a'), heavyRequest('b')]),
    status: () => client.getBatchStatus(BATCH_ID),
    results: () => client.getBatchResults(BATCH_ID),
    cancel: () => client.cancelBatch(BATCH_ID),
    delete: () => client.deleteBatch(BATCH_ID),
    retry_failed: () => client.retryFailed(BATCH_ID),
    list: () => client.listBatches(),
    health: () => client.checkHealth(),
    metrics: () => client.getMetrics(),
  };
  for (const [operation, call] of Object.entries(run)) {
    const error = await errorOf(call());
    assert.ok(error.message.startsWith(`${FAILURE_PREFIX[operation as Operation]}: 400 {`), error.message);
  }
});
