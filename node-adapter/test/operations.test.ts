import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  isBatchNotEndedError,
  isConflictError,
  isInvalidRequestError,
  isNotFoundError,
} from '../src/errors.js';
import type { BatchStatus, Breaker } from '../src/types.js';
import { completed, http, refused } from './support/fakeRunpod.js';
import { BATCH_ID, errorOf, setUp, statusOf } from './support/setup.js';

const RETRY_ID = 'batch_fedcba9876543210fedcba98';

test('cancel sends the id and gives the status', async (t) => {
  const { client, server } = await setUp(t, [completed(statusOf('processing'))]);
  assert.deepEqual(await client.cancelBatch(BATCH_ID), statusOf('processing'));
  assert.deepEqual(server.calls[0]?.input, { operation: 'cancel', id: BATCH_ID });
});

test('a cancel whose first reply was lost gives the status when the second comes after the end', async (t) => {
  const { client } = await setUp(t, [
    'drop',
    refused(409, 'conflict_error', 'has ended already'),
    completed(statusOf('ended')),
  ]);
  assert.deepEqual(await client.cancelBatch(BATCH_ID), statusOf('ended'));
});

test('a cancel after the end is a ConflictError', async (t) => {
  const { client } = await setUp(t, [refused(409, 'conflict_error', 'has ended already')]);
  assert.ok(isConflictError(await errorOf(client.cancelBatch(BATCH_ID))));
});

test('delete sends the id and says that the batch is gone', async (t) => {
  const { client, server } = await setUp(t, [completed({ id: BATCH_ID, deleted: true })]);
  assert.deepEqual(await client.deleteBatch(BATCH_ID), { id: BATCH_ID, deleted: true });
  assert.deepEqual(server.calls[0]?.input, { operation: 'delete', id: BATCH_ID });
});

test('a delete whose first reply was lost has done its work when the second finds nothing', async (t) => {
  const { client } = await setUp(t, ['drop', refused(404, 'not_found_error', 'no such batch')]);
  assert.deepEqual(await client.deleteBatch(BATCH_ID), { id: BATCH_ID, deleted: true });
});

test('a delete of a batch that never was is a NotFoundError, also after a 429', async (t) => {
  const { client } = await setUp(t, [http(429), refused(404, 'not_found_error', 'no such batch')]);
  assert.ok(isNotFoundError(await errorOf(client.deleteBatch(BATCH_ID))));
});

test('a delete before the end is a ConflictError under its prefix', async (t) => {
  const { client } = await setUp(t, [refused(409, 'conflict_error', 'not ended')]);
  const error = await errorOf(client.deleteBatch(BATCH_ID));
  assert.ok(isConflictError(error));
  assert.match(error.message, /^Failed to delete batch: 409 /);
});

test('a retry sends the id alone, or with the key given, and gives the new id', async (t) => {
  const { client, server } = await setUp(t, () => completed({ id: RETRY_ID }));
  assert.deepEqual(await client.retryFailed(BATCH_ID), { id: RETRY_ID });
  await client.retryFailed(BATCH_ID, { idempotencyKey: 'second retry' });
  assert.deepEqual(
    server.calls.map((call) => call.input),
    [
      { operation: 'retry_failed', id: BATCH_ID },
      { operation: 'retry_failed', id: BATCH_ID, idempotency_key: 'second retry' },
    ],
  );
});

test('a retry whose reply was lost is asked for again with the same body', async (t) => {
  const { client, server } = await setUp(t, ['drop', http(524), completed({ id: RETRY_ID })]);
  assert.deepEqual(await client.retryFailed(BATCH_ID), { id: RETRY_ID });
  assert.equal(server.calls.length, 3);
  assert.equal(new Set(server.calls.map((call) => call.text)).size, 1);
});

test('a retry before the end is a BatchNotEndedError under its prefix', async (t) => {
  const { client } = await setUp(t, [refused(400, 'batch_not_ended', 'Batch not yet complete', 'id')]);
  const error = await errorOf(client.retryFailed(BATCH_ID));
  assert.ok(isBatchNotEndedError(error));
  assert.match(error.message, /^Failed to retry batch: 400 .*Batch not yet complete/);
});

test('a retry of a batch in which nothing failed is an InvalidRequestError', async (t) => {
  const message = 'id: no request errored or expired';
  const { client } = await setUp(t, [refused(400, 'invalid_request_error', message, 'id')]);
  const error = await errorOf(client.retryFailed(BATCH_ID));
  assert.ok(isInvalidRequestError(error));
  assert.ok(!isBatchNotEndedError(error));
  assert.ok(error.message.includes(message));
});

test('a retry of a batch that is gone is a NotFoundError', async (t) => {
  const { client } = await setUp(t, [refused(404, 'not_found_error', 'no such batch')]);
  assert.ok(isNotFoundError(await errorOf(client.retryFailed(BATCH_ID))));
});

test('list sends only the options given and gives the page', async (t) => {
  const page = { batches: [statusOf('ended', 2)], next_page: 'n1' };
  const { client, server } = await setUp(t, () => completed(page));
  assert.deepEqual(await client.listBatches(), page);
  await client.listBatches({ limit: 5, page: 'n1' });
  assert.deepEqual(
    server.calls.map((call) => call.input),
    [{ operation: 'list' }, { operation: 'list', limit: 5, page: 'n1' }],
  );
});

test('an unready service is an answer, not an error', async (t) => {
  const { client, server } = await setUp(t, [completed({ ready: false, redis: 'down' })]);
  assert.deepEqual(await client.checkHealth(), { ready: false, redis: 'down' });
  assert.deepEqual(server.calls[0]?.input, { operation: 'health' });
});

test('a health report tells of each endpoint whether and why it rests', async (t) => {
  const breaker: Breaker = {
    state: 'open',
    cause: 'deaths',
    resting_s: 12.5,
    refusals: 0,
    worker_deaths: 5,
  };
  const report = {
    ready: false,
    endpoints: { mistral: { id: 'abc', ok: true, workers: { idle: 1 }, breaker } },
  };
  const { client } = await setUp(t, [completed(report)]);
  const health = await client.checkHealth();
  assert.deepEqual(health, report);
  assert.equal(health.endpoints?.mistral?.breaker?.cause, 'deaths');
});

test('a status tells how often work was handed out, lost and halved', async (t) => {
  const status: BatchStatus = { ...statusOf('ended', 2), attempts: 9, lost_attempts: 5, splits: 1 };
  const { client } = await setUp(t, [completed(status)]);
  const { attempts, lost_attempts, splits } = await client.getBatchStatus(BATCH_ID);
  assert.deepEqual([attempts, lost_attempts, splits], [9, 5, 1]);
});

test('metrics are given as they come', async (t) => {
  const { client } = await setUp(t, [completed({ queue_depth: { mistral: 3 } })]);
  assert.deepEqual(await client.getMetrics(), { queue_depth: { mistral: 3 } });
});
