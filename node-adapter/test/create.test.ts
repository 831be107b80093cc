import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isConflictError, isInvalidRequestError, isRequestTooLargeError } from '../src/errors.js';
import type { BatchParams, ResponseFormat } from '../src/types.js';
import { API_KEY, completed, http, refused, unfinished } from './support/fakeRunpod.js';
import { BATCH_ID, errorOf, requestOf, setUp } from './support/setup.js';

test('create is one POST to /runsync held for at most 60 s, with the key as a bearer token', async (t) => {
  const { client, server } = await setUp(t, [completed({ id: BATCH_ID })]);
  assert.deepEqual(await client.createBatch('email', [requestOf('a')]), { id: BATCH_ID });
  const [call] = server.calls;
  assert.equal(server.calls.length, 1);
  assert.equal(call?.method, 'POST');
  assert.equal(call?.path, '/runsync?wait=60000');
  assert.equal(call?.headers.authorization, `Bearer ${API_KEY}`);
  assert.equal(call?.headers['content-type'], 'application/json');
});

test('the input of a create has the operation, stage, requests and a random idempotency key, and nothing else', async (t) => {
  const { client, server } = await setUp(t, () => completed({ id: BATCH_ID }));
  await client.createBatch('email', [requestOf('a')]);
  await client.createBatch('email', [requestOf('a')]);
  const [first, second] = server.calls.map((call) => call.input);
  assert.deepEqual(Object.keys(first ?? {}), ['operation', 'stage', 'idempotency_key', 'requests']);
  assert.equal(first?.['operation'], 'create');
  assert.deepEqual(first?.['requests'], [requestOf('a')]);
  assert.match(String(first?.['idempotency_key']), /^[0-9a-f-]{36}$/);
  assert.notEqual(first?.['idempotency_key'], second?.['idempotency_key']);
});

test('the options of a create travel under their wire names', async (t) => {
  const { client, server } = await setUp(t, [completed({ id: BATCH_ID })]);
  await client.createBatch('a stage of our own', [requestOf('a')], {
    idempotencyKey: 'order-7',
    priority: 'high',
    expiresInS: 3600,
    callbackUrl: 'https://app.example/batches',
  });
  const { requests, ...rest } = server.calls[0]?.input ?? {};
  assert.deepEqual(rest, {
    operation: 'create',
    stage: 'a stage of our own',
    idempotency_key: 'order-7',
    priority: 'high',
    expires_in_s: 3600,
    callback_url: 'https://app.example/batches',
  });
});

test('requests pass through byte for byte, with any custom_id and any further field', async (t) => {
  const { client, server } = await setUp(t, [completed({ id: BATCH_ID })]);
  const requests = [
    'lead_7_email',
    'żółć 🦊',
    'two\nlines\t"quoted"\\',
    'é vs e\u0301',
    ' padded ',
    '\u0000',
  ].map((customId) => ({
    custom_id: customId,
    params: {
      system: `system of ${customId}`,
      messages: [{ role: 'user' as const, content: `Bonjour 👋\r\n${customId}` }],
      max_tokens: 7,
      temperature: 0,
      top_p: 0.5,
    },
    metadata: { model_hint: 'mistral' as const, leadId: '7', campaign: { name: 'ü' } },
  }));
  await client.createBatch('email', requests);
  assert.deepEqual(server.calls[0]?.input['requests'], requests);
});

test('what an answer must be travels as it was given', async (t) => {
  const { client, server } = await setUp(t, [completed({ id: BATCH_ID })]);
  const schema = { type: 'object', properties: { score: { type: 'integer' } }, required: ['score'] };
  const formats: ResponseFormat[] = [
    { type: 'text' },
    { type: 'json_object' },
    { type: 'json_schema', json_schema: { schema, name: 'lead', strict: true } },
  ];
  const requests = formats.map((format, index) => {
    const params: BatchParams = {
      messages: [{ role: 'user', content: 'Score this lead.' }],
      response_format: format,
      on_invalid: 'retry',
    };
    return { custom_id: `lead_${index}`, params };
  });
  await client.createBatch('email', requests);
  assert.deepEqual(server.calls[0]?.input['requests'], requests);
});

test('a 524 is sent again under the same idempotency key and body', async (t) => {
  const { client, server, clock } = await setUp(t, [
    http(524, '<html>timeout</html>'),
    completed({ id: BATCH_ID }),
  ]);
  assert.deepEqual(await client.createBatch('email', [requestOf('a')]), { id: BATCH_ID });
  assert.equal(server.calls.length, 2);
  assert.equal(server.calls[0]?.text, server.calls[1]?.text);
  assert.ok(server.calls[0]?.input['idempotency_key']);
  assert.deepEqual(clock.sleeps, [250]);
});

test('a reply lost with its connection is asked for again under the same idempotency key', async (t) => {
  const { client, server } = await setUp(t, ['drop', completed({ id: BATCH_ID })]);
  assert.deepEqual(await client.createBatch('email', [requestOf('a')]), { id: BATCH_ID });
  assert.equal(server.calls[0]?.text, server.calls[1]?.text);
});

test('a job that RunPod has forgotten is sent again under the same idempotency key', async (t) => {
  const { client, server } = await setUp(t, [
    unfinished(),
    http(404, 'job not found'),
    completed({ id: BATCH_ID }),
  ]);
  assert.deepEqual(await client.createBatch('email', [requestOf('a')]), { id: BATCH_ID });
  assert.deepEqual(
    server.calls.map((call) => call.method),
    ['POST', 'GET', 'POST'],
  );
  assert.equal(server.calls[0]?.text, server.calls[2]?.text);
});

test('a refused create names the field, under the prefix that callers match', async (t) => {
  const message = 'requests[3].custom_id: the same custom_id as requests[0]';
  const { client, server } = await setUp(t, [
    refused(400, 'invalid_request_error', message, 'requests[3].custom_id'),
  ]);
  const error = await errorOf(client.createBatch('email', [requestOf('a')]));
  assert.ok(isInvalidRequestError(error));
  assert.ok(error.message.startsWith('Failed to create batch: 400 {"type":"error"'), error.message);
  assert.ok(error.message.includes(message));
  assert.equal(error.status, 400);
  assert.equal(error.type, 'invalid_request_error');
  assert.equal(error.param, 'requests[3].custom_id');
  assert.equal(error.requestId, 'req_42');
  assert.equal(server.calls.length, 1, 'a refused call must not be repeated');
});

test('an idempotency key of another body is a ConflictError', async (t) => {
  const { client } = await setUp(t, [refused(409, 'conflict_error', 'key used with another body')]);
  const error = await errorOf(client.createBatch('email', [requestOf('a')], { idempotencyKey: 'k' }));
  assert.ok(isConflictError(error));
  assert.equal(error.status, 409);
});

test('a request that no part can hold is a typed error that names it and the limit, and nothing is sent', async (t) => {
  const { client, server } = await setUp(t, []);
  const large = requestOf('b');
  // Two bytes each: characters alone would pass.
  large.params.messages = [{ role: 'user', content: 'é'.repeat(2_000_000) }];
  const error = await errorOf(client.createBatch('email', [requestOf('a'), large]));
  assert.ok(isRequestTooLargeError(error));
  assert.match(
    error.message,
    /^Failed to create batch: 413 requests\[1\]: 40000\d\d bytes .* limit of 3999998 /,
  );
  assert.equal(error.status, 413);
  assert.equal(error.param, 'requests[1]');
  assert.equal(server.calls.length, 0);
});
