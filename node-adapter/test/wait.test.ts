import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isConnectionError, isNotFoundError, isServerError, isWaitTimeoutError } from '../src/errors.js';
import type { BatchStatus } from '../src/types.js';
import { completed, http, refused } from './support/fakeRunpod.js';
import { BATCH_ID, errorOf, setUp, statusOf } from './support/setup.js';

test('waiting polls after 1 s, then half as long again each time, and every 30 s from then on', async (t) => {
  const polls = 14;
  const { client, clock } = await setUp(t, (_, n) =>
    completed(n < polls ? statusOf('processing', 1) : statusOf('ended', 2)),
  );
  assert.deepEqual(await client.waitForBatch(BATCH_ID), statusOf('ended', 2));
  const expected = [1_000, 1_500, 2_250, 3_375, 5_062.5, 7_593.75, 11_390.625, 17_085.9375, 25_628.90625];
  assert.deepEqual(clock.sleeps, [...expected, ...new Array(polls - expected.length).fill(30_000)]);
});

test('a batch that has ended is not waited for', async (t) => {
  const { client, clock, server } = await setUp(t, [completed(statusOf('ended', 2))]);
  await client.waitForBatch(BATCH_ID);
  assert.deepEqual(clock.sleeps, []);
  assert.deepEqual(server.calls[0]?.input, { operation: 'status', id: BATCH_ID });
});

test('at the limit waiting throws the words that callers match', async (t) => {
  const { client, clock } = await setUp(t, () => completed(statusOf('processing', 1)));
  const error = await errorOf(client.waitForBatch(BATCH_ID, 10_000));
  assert.ok(isWaitTimeoutError(error));
  assert.equal(error.message, `Batch ${BATCH_ID} did not complete within 10000ms`);
  assert.equal(
    clock.sleeps.reduce((sum, ms) => sum + ms, 0),
    10_000,
  );
});

test('the limit is 30 minutes if none is given', async (t) => {
  const { client } = await setUp(t, () => completed(statusOf('submitted')));
  const error = await errorOf(client.waitForBatch(BATCH_ID));
  assert.equal(error.message, `Batch ${BATCH_ID} did not complete within 1800000ms`);
});

test('a batch that ends in the last moment of the wait is seen', async (t) => {
  const { client } = await setUp(t, (_, n) =>
    completed(n < 3 ? statusOf('processing') : statusOf('ended', 2)),
  );
  // Looks at 0, 1 and 2.5 s, and once more at the limit.
  assert.equal((await client.waitForBatch(BATCH_ID, 3_000)).processing_status, 'ended');
});

test('a steady interval replaces the growing one', async (t) => {
  const { client, clock } = await setUp(t, (_, n) => completed(statusOf(n < 4 ? 'processing' : 'ended')));
  await client.waitForBatch(BATCH_ID, 60_000, { pollIntervalMs: 200 });
  assert.deepEqual(clock.sleeps, [200, 200, 200, 200]);
});

test('progress is told of every status, the last one included', async (t) => {
  const statuses = [statusOf('collected'), statusOf('processing', 1), statusOf('ended', 2)];
  const { client } = await setUp(t, (_, n) => completed(statuses[n]));
  const seen: BatchStatus[] = [];
  await client.waitForBatch(BATCH_ID, 60_000, { onProgress: (status) => seen.push(status) });
  assert.deepEqual(seen, statuses);
});

test('an abort in the middle of the wait ends it with the reason of the signal', async (t) => {
  const { client, clock, server } = await setUp(t, () => completed(statusOf('processing')));
  const controller = new AbortController();
  const reason = new Error('the user left');
  clock.onSleep = (n) => {
    if (n === 2) controller.abort(reason);
  };
  assert.equal(await errorOf(client.waitForBatch(BATCH_ID, 60_000, { signal: controller.signal })), reason);
  assert.equal(server.calls.length, 2);
});

test('an outage in the middle of the wait is ridden out', async (t) => {
  const { client } = await setUp(
    t,
    (_, n) =>
      n === 0
        ? completed(statusOf('processing'))
        : n < 9
          ? http(503, 'down')
          : completed(statusOf('ended', 2)),
    { maxRetries: 1 },
  );
  assert.equal((await client.waitForBatch(BATCH_ID)).processing_status, 'ended');
});

test('an outage up to the limit is the cause of the error', async (t) => {
  const { client } = await setUp(t, (_, n) =>
    n === 0 ? completed(statusOf('processing')) : http(503, 'down'),
  );
  const error = await errorOf(client.waitForBatch(BATCH_ID, 20_000));
  assert.ok(isWaitTimeoutError(error));
  assert.ok(isServerError(error.cause));
});

test('a service that is wrong from the start fails at the first look', async (t) => {
  const { client } = await setUp(t, [], { baseUrl: 'http://127.0.0.1:1/v2/x', maxRetries: 0 });
  assert.ok(isConnectionError(await errorOf(client.waitForBatch(BATCH_ID))));
});

test('a batch that is deleted in the middle of the wait ends it', async (t) => {
  const { client } = await setUp(t, [
    completed(statusOf('processing')),
    refused(404, 'not_found_error', 'no such batch'),
  ]);
  const error = await errorOf(client.waitForBatch(BATCH_ID));
  assert.ok(isNotFoundError(error));
});

test("a fault of the caller's own progress function is not swallowed", async (t) => {
  const { client } = await setUp(t, () => completed(statusOf('processing')));
  const mistake = new TypeError('oops');
  const onProgress = () => {
    throw mistake;
  };
  assert.equal(await errorOf(client.waitForBatch(BATCH_ID, 60_000, { onProgress })), mistake);
});
