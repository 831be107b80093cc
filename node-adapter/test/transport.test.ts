import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LlmBatchClient } from '../src/client.js';
import {
  isAuthenticationError,
  isConnectionError,
  isEndpointNotFoundError,
  isNotFoundError,
  isPermissionDeniedError,
  isRateLimitError,
  isRequestTimeoutError,
  isServerError,
} from '../src/errors.js';
import { completed, failed, http, refused, unfinished } from './support/fakeRunpod.js';
import { BATCH_ID, errorOf, setUp, statusOf } from './support/setup.js';

const ENDED = statusOf('ended', 2);

test('a call that is not final after its wait is looked up under /status with growing pauses', async (t) => {
  const { client, clock, server } = await setUp(t, [
    unfinished('IN_QUEUE'),
    unfinished('IN_QUEUE'),
    unfinished('RUNNING'),
    unfinished('IN_PROGRESS'),
    completed(ENDED),
  ]);
  assert.deepEqual(await client.getBatchStatus(BATCH_ID), ENDED);
  const paths = server.calls.map((call) => `${call.method} ${call.path}`);
  assert.deepEqual(paths.slice(1), new Array(4).fill('GET /status/sync-5f8d4a2e-0001-u1'));
  assert.deepEqual(clock.sleeps, [250, 375, 562.5, 843.75]);
});

test('a passing fault of /status is asked again without sending the job again', async (t) => {
  const { client, server } = await setUp(t, [
    unfinished(),
    http(502, '<html>'),
    'drop',
    http(429),
    completed(ENDED),
  ]);
  await client.getBatchStatus(BATCH_ID);
  assert.deepEqual(
    server.calls.map((call) => call.method),
    ['POST', 'GET', 'GET', 'GET', 'GET'],
  );
});

test('a job that stays in the queue is given up at the deadline of the operation', async (t) => {
  const { client, clock } = await setUp(t, () => unfinished(), { operationTimeoutMs: 10_000 });
  const error = await errorOf(client.getBatchStatus(BATCH_ID));
  assert.ok(isRequestTimeoutError(error));
  assert.match(error.message, /^Failed to get batch status: no final answer within 10000ms/);
  assert.equal(
    clock.sleeps.reduce((sum, ms) => sum + ms, 0),
    10_000,
  );
});

test('Retry-After in seconds is obeyed', async (t) => {
  const { client, clock } = await setUp(t, [
    http(429, 'slow down', { 'retry-after': '7' }),
    completed(ENDED),
  ]);
  await client.getBatchStatus(BATCH_ID);
  assert.deepEqual(clock.sleeps, [7_000]);
});

test('Retry-After as a date is obeyed', async (t) => {
  const { client, clock } = await setUp(t, (_, n) =>
    n === 0
      ? http(503, '', { 'retry-after': new Date(clockNow() + 12_000).toUTCString() })
      : completed(ENDED),
  );
  const clockNow = () => clock.nowMs;
  await client.getBatchStatus(BATCH_ID);
  assert.deepEqual(clock.sleeps, [12_000]);
});

test('a Retry-After beyond the deadline of the operation is not waited for', async (t) => {
  const { client, clock } = await setUp(t, [http(429, '', { 'retry-after': '3600' })]);
  const error = await errorOf(client.getBatchStatus(BATCH_ID));
  assert.ok(isRateLimitError(error));
  assert.equal(error.retryAfterMs, 3_600_000);
  assert.deepEqual(clock.sleeps, []);
});

for (const status of [408, 429, 500, 502, 503, 504, 520, 524]) {
  test(`HTTP ${status} is tried again`, async (t) => {
    const { client, server } = await setUp(t, [http(status), completed(ENDED)]);
    assert.deepEqual(await client.getBatchStatus(BATCH_ID), ENDED);
    assert.equal(server.calls.length, 2);
  });
}

test('retries are bounded and back off with jitter', async (t) => {
  const { client, clock, server } = await setUp(t, () => http(503, 'down'), { maxRetries: 3 });
  const error = await errorOf(client.getBatchStatus(BATCH_ID));
  assert.ok(isServerError(error));
  assert.equal(error.message, 'Failed to get batch status: 503 down');
  assert.equal(server.calls.length, 4);
  assert.deepEqual(clock.sleeps, [250, 500, 1_000]);
});

test("the handler's own 503 is tried again", async (t) => {
  const { client, server } = await setUp(t, [refused(503, 'overloaded_error', 'no Redis'), completed(ENDED)]);
  await client.getBatchStatus(BATCH_ID);
  assert.equal(server.calls.length, 2);
});

for (const [status, guard] of [
  [401, isAuthenticationError],
  [403, isPermissionDeniedError],
] as const) {
  test(`RunPod's ${status} is a typed error and is not repeated`, async (t) => {
    const { client, server } = await setUp(t, [http(status, 'no')]);
    const error = await errorOf(client.getBatchStatus(BATCH_ID));
    assert.ok(guard(error));
    assert.equal(error.message, `Failed to get batch status: ${status} no`);
    assert.equal(server.calls.length, 1);
  });
}

test("RunPod's 404 says that there is no endpoint, which says nothing about the batch", async (t) => {
  const { client } = await setUp(t, [http(404, '{"error":"endpoint not found"}')]);
  const error = await errorOf(client.getBatchStatus(BATCH_ID));
  assert.ok(isEndpointNotFoundError(error));
  assert.ok(!isNotFoundError(error));
  assert.equal(error.status, 404);
});

test("the handler's 404 is a NotFoundError", async (t) => {
  const { client } = await setUp(t, [refused(404, 'not_found_error', 'no such batch')]);
  const error = await errorOf(client.getBatchStatus(BATCH_ID));
  assert.ok(isNotFoundError(error));
  assert.match(error.message, /^Failed to get batch status: 404 .*no such batch/);
});

for (const status of ['FAILED', 'CANCELLED', 'TIMED_OUT']) {
  test(`a job that is ${status} with a text of RunPod's is a 500 api_error that keeps the text`, async (t) => {
    const { client } = await setUp(t, () => failed('job timed out after 1 retries', status), {
      maxRetries: 0,
    });
    const error = await errorOf(client.getBatchStatus(BATCH_ID));
    assert.ok(isServerError(error));
    assert.equal(error.message, 'Failed to get batch status: 500 job timed out after 1 retries');
    assert.equal(error.type, 'api_error');
  });
}

test('an HTML error page is kept as text, cut short', async (t) => {
  const page = `<html><body><h1>502 Bad Gateway</h1>${'x'.repeat(100_000)}</body></html>`;
  const { client } = await setUp(t, () => http(502, page, { 'content-type': 'text/html' }), {
    maxRetries: 0,
  });
  const error = await errorOf(client.getBatchStatus(BATCH_ID));
  assert.ok(isServerError(error));
  assert.ok(error.message.startsWith('Failed to get batch status: 502 <html><body><h1>502 Bad Gateway'));
  assert.ok(error.message.length < 2_100);
});

test('a 200 that is no job is tried again, then a ServerError', async (t) => {
  const { client, server } = await setUp(t, () => http(200, '<html>maintenance</html>'), { maxRetries: 1 });
  const error = await errorOf(client.getBatchStatus(BATCH_ID));
  assert.ok(isServerError(error));
  assert.match(error.message, /maintenance/);
  assert.equal(server.calls.length, 2);
});

test('a job that completed without output is sent again', async (t) => {
  const { client } = await setUp(t, [completed(undefined), completed(ENDED)]);
  assert.deepEqual(await client.getBatchStatus(BATCH_ID), ENDED);
});

test('an output of another shape is a typed error', async (t) => {
  const { client } = await setUp(t, [completed('surprise')]);
  const error = await errorOf(client.getBatchStatus(BATCH_ID));
  assert.ok(isServerError(error));
  assert.match(error.message, /^Failed to get batch status: 502 .*processing_status/);
});

test('no server at all is a ConnectionError that says why, after the retries', async (t) => {
  const { client, clock } = await setUp(t, [], { baseUrl: 'http://127.0.0.1:1/v2/x', maxRetries: 2 });
  const error = await errorOf(client.getBatchStatus(BATCH_ID));
  assert.ok(isConnectionError(error));
  assert.match(error.message, /^Failed to get batch status: no answer \(.+\)$/);
  assert.equal(error.status, undefined);
  assert.equal(clock.sleeps.length, 2);
});

test('an answer that does not come in time is a RequestTimeoutError', async (t) => {
  const { client } = await setUp(t, () => 'hang', { timeoutMs: 40, maxRetries: 0 });
  const error = await errorOf(client.getBatchStatus(BATCH_ID));
  assert.ok(isRequestTimeoutError(error));
  assert.ok(isConnectionError(error), 'a timeout is a kind of missing answer');
  assert.equal(error.message, 'Failed to get batch status: no answer within 40ms');
});

test('an abort ends a call in flight with the reason of the signal', async (t) => {
  const controller = new AbortController();
  const reason = new Error('the user left');
  const { client } = await setUp(t, () => {
    controller.abort(reason);
    return 'hang';
  });
  assert.equal(await errorOf(client.getBatchStatus(BATCH_ID, { signal: controller.signal })), reason);
});

test('an abort ends the wait between two looks', async (t) => {
  const controller = new AbortController();
  const { client, clock, server } = await setUp(t, () => unfinished());
  clock.onSleep = (n) => {
    if (n === 3) controller.abort();
  };
  const error = await errorOf(client.getBatchStatus(BATCH_ID, { signal: controller.signal }));
  assert.equal(error.name, 'AbortError');
  assert.equal(server.calls.length, 3);
});

test('a signal that has aborted before sends nothing', async (t) => {
  const { client, server } = await setUp(t, []);
  const error = await errorOf(client.createBatch('email', [], { signal: AbortSignal.abort() }));
  assert.equal(error.name, 'AbortError');
  assert.equal(server.calls.length, 0);
});

test('a slash at the end of the URL changes nothing', async (t) => {
  const { clock, server } = await setUp(t, [completed(ENDED)]);
  const client = new LlmBatchClient({ baseUrl: `${server.url}//`, apiKey: 'k', clock });
  await client.getBatchStatus(BATCH_ID);
  assert.equal(server.calls[0]?.path, '/runsync?wait=60000');
});
