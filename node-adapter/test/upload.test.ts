import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  isConflictError,
  isConnectionError,
  isInvalidRequestError,
  isRequestTooLargeError,
} from '../src/errors.js';
import type { BatchRequest, UploadProgress } from '../src/types.js';
import { http, type Received, refused } from './support/fakeRunpod.js';
import { FakeUploads } from './support/fakeUploads.js';
import { BATCH_ID, errorOf, heavyRequest, requestOf, setUp } from './support/setup.js';

const heavy = (count: number) => Array.from({ length: count }, (_, n) => heavyRequest(`lead_${n}_email`));
const ids = (requests: readonly BatchRequest[]) => requests.map(({ custom_id }) => custom_id);
const partsOf = (calls: readonly Received[]) =>
  calls.filter((call) => call.input['operation'] === 'upload').map((call) => call.input['part']);

/** Requests one by one, with a note of how many were taken and whether the source was closed. */
function watched(requests: readonly BatchRequest[]) {
  const seen = { taken: 0, closed: false };
  async function* take() {
    try {
      for (const request of requests) {
        seen.taken += 1;
        yield request;
      }
    } finally {
      seen.closed = true;
    }
  }
  return { seen, source: take() };
}

test('a batch over 4 MB goes in parts under one key, and is then created by reference to them', async (t) => {
  const service = new FakeUploads();
  const { client, server } = await setUp(t, (call) => service.answer(call));
  const batch = [...heavy(4), requestOf('small')];
  assert.deepEqual(await client.createBatch('email', batch), { id: BATCH_ID });
  const uploads = server.calls.filter((call) => call.input['operation'] === 'upload');
  assert.deepEqual(partsOf(server.calls).sort(), [0, 1, 2, 3]);
  const key = String(uploads[0]?.input['upload']);
  assert.match(key, /^[0-9a-f-]{36}$/);
  for (const { path, input } of uploads) {
    const { requests, part, ...rest } = input;
    assert.equal(path, '/runsync?wait=60000');
    assert.deepEqual(rest, { operation: 'upload', upload: key, stage: 'email' });
  }
  assert.deepEqual(ids(service.requests(key)), ids(batch));
  assert.deepEqual(service.creates, [{ operation: 'create', stage: 'email', upload: key, parts: 4 }]);
});

test('the options of a large create travel with its parts and with the create', async (t) => {
  const service = new FakeUploads();
  const { client, server } = await setUp(t, (call) => service.answer(call));
  await client.createBatch('email', heavy(2), {
    uploadKey: 'leads of May',
    idempotencyKey: 'order-7',
    priority: 'low',
    expiresInS: 3600,
    callbackUrl: 'https://app.example/batches',
  });
  const { requests, part, ...upload } = server.calls[0]?.input ?? {};
  assert.deepEqual(upload, {
    operation: 'upload',
    upload: 'leads of May',
    stage: 'email',
    expires_in_s: 3600,
  });
  assert.deepEqual(service.creates, [
    {
      operation: 'create',
      stage: 'email',
      upload: 'leads of May',
      parts: 2,
      idempotency_key: 'order-7',
      priority: 'low',
      expires_in_s: 3600,
      callback_url: 'https://app.example/batches',
    },
  ]);
});

test('an idempotency key names the upload too, and an upload key a batch that fits into one call', async (t) => {
  const service = new FakeUploads();
  const { client } = await setUp(t, (call) => service.answer(call));
  await client.createBatch('email', heavy(2), { idempotencyKey: 'order-7' });
  assert.deepEqual([...service.parts.keys()], ['order-7']);
  await client.createBatch('email', [requestOf('a')], { uploadKey: 'leads of May' });
  assert.equal(service.creates[1]?.['idempotency_key'], 'leads of May');
});

test('the same call again sends the same parts under the same key', async (t) => {
  const service = new FakeUploads();
  const { client, server } = await setUp(t, (call) => service.answer(call));
  const bodies = async () => {
    const from = server.calls.length;
    await client.createBatch('email', heavy(3), { uploadKey: 'k' });
    return server.calls
      .slice(from)
      .map((call) => call.text)
      .sort();
  };
  assert.deepEqual(await bodies(), await bodies());
});

test('each part is resent by itself, whatever happened to its reply', async (t) => {
  const service = new FakeUploads();
  const faults = new Map([
    [0, 'drop' as const],
    [1, http(524, '<html>')],
    [2, refused(503, 'overloaded_error', 'no Redis')],
  ]);
  const { client, server } = await setUp(t, async (call) => {
    const fault = faults.get(Number(call.input['part']));
    faults.delete(Number(call.input['part']));
    return fault ?? service.answer(call);
  });
  await client.createBatch('email', heavy(4), { uploadKey: 'k' });
  assert.deepEqual(partsOf(server.calls).sort(), [0, 0, 1, 1, 2, 2, 3]);
  assert.deepEqual(ids(service.requests('k')), ids(heavy(4)));
});

test('three parts are on the way at most, and no request is taken that they leave no room for', async (t) => {
  const service = new FakeUploads();
  let open = () => {};
  const gate = new Promise<void>((resolve) => {
    open = resolve;
  });
  const { seen, source } = watched(heavy(8));
  const { client } = await setUp(t, async (call) => {
    // Nobody is answered until the third is here: whoever sends more by then sends too many.
    if (call.input['part'] === 2) setImmediate(open);
    const reply = service.answer(call, gate);
    if (call.input['part'] === 2) assert.ok(seen.taken <= 4, `${seen.taken} requests for 3 parts`);
    return reply;
  });
  await client.createBatch('email', source, { uploadKey: 'k' });
  assert.equal(service.mostAtOnce, 3);
  assert.deepEqual(ids(service.requests('k')), ids(heavy(8)));
  assert.ok(seen.closed);
});

test('progress grows with each part that has arrived, up to the whole batch', async (t) => {
  const service = new FakeUploads();
  const { client } = await setUp(t, (call) => service.answer(call));
  const seen: UploadProgress[] = [];
  await client.createBatch('email', heavy(4), { onUpload: (progress) => seen.push(progress) });
  assert.deepEqual(
    seen.map(({ parts, requests }) => [parts, requests]),
    [1, 2, 3, 4].map((n) => [n, n]),
  );
  const bytes = heavy(4).reduce((sum, request) => sum + JSON.stringify([request]).length, 0);
  assert.equal(seen.at(-1)?.bytes, bytes);
});

test('a batch of one part reports it when it was made', async (t) => {
  const service = new FakeUploads();
  const { client } = await setUp(t, (call) => service.answer(call));
  const seen: UploadProgress[] = [];
  const request = requestOf('a');
  await client.createBatch('email', [request], { onUpload: (progress) => seen.push(progress) });
  assert.deepEqual(seen, [{ parts: 1, requests: 1, bytes: JSON.stringify([request]).length }]);
});

test('the error of a part names the request by its place in the whole batch, and ends the rest', async (t) => {
  const message = 'requests[1].custom_id: the same custom_id as requests[0]';
  // No other part is answered: what is sent after the refusal would be seen.
  const { client, server } = await setUp(t, ({ input }) =>
    input['part'] === 1 ? refused(400, 'invalid_request_error', message, 'requests[1].custom_id') : 'hang',
  );
  const { seen, source } = watched([heavyRequest('a'), requestOf('b'), heavyRequest('c'), ...heavy(20)]);
  const error = await errorOf(client.createBatch('email', source));
  assert.ok(isInvalidRequestError(error));
  assert.equal(error.param, 'requests[3].custom_id');
  assert.match(
    error.message,
    /^Failed to create batch: 400 \{.*requests\[3\]\.custom_id: .* as requests\[2\]/,
  );
  assert.equal(error.requestId, 'req_42');
  assert.ok(seen.taken <= 5, `${seen.taken} of 23 requests were taken`);
  assert.ok(server.calls.length <= 3);
});

test('the error of a create by reference counts over the batch already', async (t) => {
  const service = new FakeUploads();
  const path = 'requests[3].custom_id';
  const { client } = await setUp(t, async (call) =>
    call.input['operation'] === 'create'
      ? refused(400, 'invalid_request_error', `${path}: the same custom_id as requests[0]`, path)
      : service.answer(call),
  );
  const error = await errorOf(client.createBatch('email', heavy(4)));
  assert.equal(error['param'], path);
});

test('another body under the key of an upload is a ConflictError', async (t) => {
  const { client } = await setUp(t, () =>
    refused(409, 'conflict_error', 'part: sent before with another body'),
  );
  assert.ok(isConflictError(await errorOf(client.createBatch('email', heavy(2), { uploadKey: 'k' }))));
});

test('a part that never gets through is the error of the create, after its retries', async (t) => {
  const service = new FakeUploads();
  const { client } = await setUp(
    t,
    async (call) => (call.input['part'] === 1 ? 'drop' : service.answer(call)),
    { maxRetries: 2 },
  );
  assert.ok(isConnectionError(await errorOf(client.createBatch('email', heavy(3)))));
  assert.equal(service.creates.length, 0);
});

test('a request that no part can hold ends an upload, and no batch is made', async (t) => {
  const service = new FakeUploads();
  const { client } = await setUp(t, (call) => service.answer(call));
  const large = requestOf('large');
  large.params.system = 'x'.repeat(8_000_000);
  const error = await errorOf(client.createBatch('email', [...heavy(3), large]));
  assert.ok(isRequestTooLargeError(error));
  assert.equal(error.param, 'requests[3]');
  assert.equal(service.creates.length, 0);
});

test('an error of the source ends the upload and is thrown as it is', async (t) => {
  const service = new FakeUploads();
  const { client } = await setUp(t, (call) => service.answer(call));
  const reason = new Error('the database went away');
  async function* broken() {
    yield* heavy(3);
    throw reason;
  }
  assert.equal(await errorOf(client.createBatch('email', broken())), reason);
  assert.equal(service.creates.length, 0);
});

test('an abort ends an upload in flight, with the reason of the signal', async (t) => {
  const controller = new AbortController();
  const reason = new Error('the user left');
  const { seen, source } = watched(heavy(20));
  const { client } = await setUp(t, () => {
    controller.abort(reason);
    return 'hang';
  });
  assert.equal(await errorOf(client.createBatch('email', source, { signal: controller.signal })), reason);
  assert.ok(seen.taken < 20);
});

test('an abort does not wait for a source that gives nothing', async (t) => {
  const controller = new AbortController();
  const reason = new Error('the user left');
  async function* stuck() {
    yield* heavy(1);
    setImmediate(() => controller.abort(reason));
    await new Promise(() => {});
  }
  const { client, server } = await setUp(t, () => 'hang');
  assert.equal(await errorOf(client.createBatch('email', stuck(), { signal: controller.signal })), reason);
  assert.equal(server.calls.length, 0);
});
