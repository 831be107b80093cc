import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { inspect } from 'node:util';
import { isConfigurationError, isConnectionError, isServerError } from '../src/errors.js';
import { type RunpodFetchOptions, runpodFetch } from '../src/runpodFetch.js';
import { FakeClock } from './support/fakeClock.js';
import {
  API_KEY,
  completed,
  type FakeRunpod,
  failed,
  http,
  type Received,
  type Reply,
  refused,
  type Script,
  startFakeRunpod,
  unfinished,
} from './support/fakeRunpod.js';
import { errorOf } from './support/setup.js';

const BATCHES = 'https://api.anthropic.com/v1/messages/batches';
const SDK_KEY = 'sk-ant-SECRET';

interface Setup {
  readonly fetch: typeof globalThis.fetch;
  readonly clock: FakeClock;
  readonly server: FakeRunpod;
}

async function setUp(
  t: TestContext,
  script: Script | readonly Reply[],
  options: Partial<RunpodFetchOptions> = {},
): Promise<Setup> {
  const server = await startFakeRunpod(t, script);
  const clock = new FakeClock();
  return { fetch: runpodFetch({ batchUrl: server.url, apiKey: API_KEY, clock, ...options }), clock, server };
}

function answered(status: number, body: unknown, headers: Record<string, string> = {}): Reply {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  return completed({
    status_code: status,
    headers: { 'content-type': 'application/json', 'request-id': 'req_1', ...headers },
    body: text,
  });
}

function create(body: string, retryCount = 0, headers: Record<string, string> = {}): RequestInit {
  return {
    method: 'POST',
    body,
    headers: {
      'content-type': 'application/json',
      'x-stainless-retry-count': String(retryCount),
      ...headers,
    },
  };
}

function headersOf(call: Received | undefined): Record<string, string> {
  return call?.input['headers'] as Record<string, string>;
}

function keyOf(call: Received | undefined): string {
  return String(headersOf(call)['idempotency-key']);
}

test('a request travels whole, and its answer comes back whole', async (t) => {
  const { fetch, server } = await setUp(t, [answered(404, { type: 'error' }, { 'x-extra': 'kept' })]);
  const response = await fetch(`${BATCHES}?limit=5&after_id=msgbatch_1`, {
    headers: { Accept: 'application/json', 'anthropic-version': '2023-06-01', 'X-Batch-Stage': 'email' },
  });
  assert.equal(response.status, 404);
  assert.equal(response.headers.get('request-id'), 'req_1');
  assert.equal(response.headers.get('x-extra'), 'kept');
  assert.deepEqual(await response.json(), { type: 'error' });
  assert.deepEqual(server.calls[0]?.input, {
    operation: 'http',
    method: 'GET',
    path: '/v1/messages/batches',
    query: { limit: '5', after_id: 'msgbatch_1' },
    headers: {
      accept: 'application/json',
      'anthropic-version': '2023-06-01',
      'x-batch-stage': 'email',
      host: 'api.anthropic.com',
      'x-forwarded-proto': 'https',
    },
  });
  assert.match(server.calls[0]?.path ?? '', /^\/runsync\?wait=/);
});

test("the SDK's own credentials go nowhere, and RunPod's key to the batch endpoint only", async (t) => {
  const { fetch, server } = await setUp(t, () => answered(200, {}));
  for (const name of ['authorization', 'x-api-key', 'cookie', 'proxy-authorization', 'x-mine']) {
    await fetch('https://elsewhere.example/v1/models', { headers: { [name]: SDK_KEY } });
  }
  for (const call of server.calls) {
    assert.ok(!call.text.includes(SDK_KEY) && !JSON.stringify(call.headers).includes(SDK_KEY));
    assert.equal(call.headers.authorization, `Bearer ${API_KEY}`);
    assert.ok(!call.text.includes(API_KEY));
    assert.equal(headersOf(call)['host'], 'elsewhere.example');
  }
});

test('a redirect is not followed', async (t) => {
  const other = await startFakeRunpod(t, () => answered(200, {}));
  const { fetch } = await setUp(t, () => http(307, '', { location: `${other.url}/runsync` }), {
    maxRetries: 0,
  });
  await assert.rejects(fetch(BATCHES));
  assert.equal(other.calls.length, 0);
});

test("a path of the base URL's own is left out", async (t) => {
  const { fetch, server } = await setUp(t, () => answered(200, {}));
  await fetch('http://localhost:8080/anthropic/v1/models/x?beta=true');
  const input = server.calls[0]?.input;
  assert.equal(input?.['path'], '/v1/models/x');
  assert.equal(headersOf(server.calls[0])['host'], 'localhost:8080');
  assert.equal(headersOf(server.calls[0])['x-forwarded-proto'], 'http');
});

test("the base URL's path may have a version of its own", async (t) => {
  const { fetch, server } = await setUp(t, () => answered(200, {}));
  await fetch('https://gateway.test/v1/account/anthropic/v1/messages/batches', create('{"requests":[]}'));
  assert.equal(server.calls[0]?.input['path'], '/v1/messages/batches');
  assert.notEqual(keyOf(server.calls[0]), 'undefined');
});

test('a Request object and a body that is no text are read like the rest', async (t) => {
  const { fetch, server } = await setUp(t, () => answered(200, {}));
  await fetch(new Request(BATCHES, { method: 'POST', body: '{"requests":["ü"]}' }));
  await fetch(new URL(BATCHES), { method: 'POST', body: new TextEncoder().encode('{"requests":["ü"]}') });
  for (const { input } of server.calls) {
    assert.equal(input['method'], 'POST');
    assert.equal(input['body'], '{"requests":["ü"]}');
  }
  assert.equal(server.calls.length, 2);
});

test('a job that is not final is polled', async (t) => {
  const { fetch, server } = await setUp(t, [
    unfinished(),
    unfinished('IN_PROGRESS'),
    answered(200, { ok: 1 }),
  ]);
  assert.deepEqual(await (await fetch(BATCHES)).json(), { ok: 1 });
  assert.deepEqual(
    server.calls.map(({ method }) => method),
    ['POST', 'GET', 'GET'],
  );
});

test('a create is given a key, which all its tries here share', async (t) => {
  const { fetch, server } = await setUp(t, [http(524), 'drop', answered(200, { id: 'msgbatch_1' })]);
  await fetch(BATCHES, create('{"requests":[]}'));
  assert.equal(server.calls.length, 3);
  assert.match(keyOf(server.calls[0]), /^[0-9a-f-]{36}$/);
  assert.equal(new Set(server.calls.map(keyOf)).size, 1);
});

test("the SDK's retry of a create goes under the key of the try that failed", async (t) => {
  const { fetch, server } = await setUp(t, [answered(529, {}), answered(200, {}), answered(200, {})]);
  await fetch(BATCHES, create('{"requests":[1]}', 0));
  await fetch(BATCHES, create('{"requests":[1]}', 1));
  await fetch(BATCHES, create('{"requests":[1]}', 0));
  const [first, retry, fresh] = server.calls.map(keyOf);
  assert.equal(retry, first);
  assert.notEqual(fresh, first, 'the same content again is another batch');
});

test('a create without any answer is retried under its key, one of other content is not', async (t) => {
  const { fetch, server } = await setUp(t, (_, n) => (n === 0 ? 'drop' : answered(200, {})), {
    maxRetries: 0,
  });
  await assert.rejects(fetch(BATCHES, create('{"requests":[1]}', 0)));
  await fetch(BATCHES, create('{"requests":[2]}', 1));
  await fetch(BATCHES, create('{"requests":[1]}', 1, { 'x-batch-stage': 'email' }));
  await fetch(BATCHES, create('{"requests":[1]}', 1));
  const [first, otherBody, otherStage, retry] = server.calls.map(keyOf);
  assert.equal(retry, first);
  assert.equal(new Set([first, otherBody, otherStage]).size, 3);
});

test('two creates of the same content that run at once make two batches, also when one is retried', async (t) => {
  const { fetch, server } = await setUp(t, (_, n) => (n === 0 ? answered(500, {}) : answered(200, {})));
  await Promise.all([fetch(BATCHES, create('{}', 0)), fetch(BATCHES, create('{}', 0))]);
  await fetch(BATCHES, create('{}', 1));
  const [failedKey, madeKey, retryKey] = server.calls.map(keyOf);
  assert.notEqual(madeKey, failedKey);
  assert.equal(retryKey, failedKey);
});

test("a caller's own key is kept", async (t) => {
  const { fetch, server } = await setUp(t, () => answered(200, {}));
  await fetch(BATCHES, create('{}', 0, { 'Idempotency-Key': 'mine' }));
  assert.equal(keyOf(server.calls[0]), 'mine');
});

const FAULTS: readonly [string, Reply, number, string][] = [
  ['401', http(401, 'no'), 401, 'authentication_error'],
  ['403', http(403, 'no'), 403, 'permission_error'],
  ['429', http(429, '<html>', { 'retry-after': '7' }), 429, 'rate_limit_error'],
  ['500', http(500, 'down'), 500, 'api_error'],
  ['524', http(524, '<html>'), 524, 'api_error'],
  ['404 for the endpoint', http(404, 'no endpoint'), 502, 'api_error'],
  ['a failed job', failed('job timed out after 1 retries'), 500, 'api_error'],
  [
    "a job refused by the handler's own error",
    refused(400, 'invalid_request_error', 'no'),
    400,
    'invalid_request_error',
  ],
  ['nonsense', completed('surprise'), 502, 'api_error'],
];
for (const [name, reply, status, type] of FAULTS) {
  test(`RunPod's ${name} becomes a ${status} in Anthropic's shape that is not to be retried`, async (t) => {
    const { fetch } = await setUp(t, () => reply, { maxRetries: 1 });
    const response = await fetch(BATCHES);
    assert.equal(response.status, status);
    assert.equal(response.headers.get('x-should-retry'), 'false');
    assert.equal(response.headers.get('content-type'), 'application/json');
    if (status === 429) assert.equal(response.headers.get('retry-after'), '7');
    const body = (await response.json()) as { type: string; error: { type: string; message: string } };
    assert.equal(body.type, 'error');
    assert.equal(body.error.type, type);
    assert.match(body.error.message, /^Failed to call the service: /);
  });
}

test("a service's own error is passed on at once for the SDK to retry", async (t) => {
  const { fetch, server } = await setUp(t, () => answered(529, { type: 'error' }));
  const response = await fetch(BATCHES);
  assert.equal(response.status, 529);
  assert.equal(response.headers.get('x-should-retry'), null);
  assert.equal(server.calls.length, 1);
});

test('no answer at all is thrown, for the SDK to make its connection error of', async (t) => {
  const { fetch } = await setUp(t, () => 'drop', { maxRetries: 0 });
  assert.ok(isConnectionError(await errorOf(fetch(BATCHES))));
});

test('a call too large for RunPod is a 413', async (t) => {
  const { fetch, server } = await setUp(t, () => answered(200, {}));
  const response = await fetch('https://api.anthropic.com/v1/messages', create('x'.repeat(20_000_001)));
  assert.equal(response.status, 413);
  assert.equal(((await response.json()) as { error: { type: string } }).error.type, 'request_too_large');
  assert.equal(server.calls.length, 0);
});

test('an abort ends a call in flight', async (t) => {
  const controller = new AbortController();
  const { fetch } = await setUp(t, () => {
    controller.abort();
    return 'hang';
  });
  assert.equal((await errorOf(fetch(BATCHES, { signal: controller.signal }))).name, 'AbortError');
});

// From JavaScript a variable that is not set comes as undefined.
const UNSET = { apiKey: undefined } as unknown as Partial<RunpodFetchOptions>;
for (const options of [{ batchUrl: 'nonsense' }, { apiKey: '' }, { apiKey: 'a\nb' }, UNSET]) {
  test(`unusable options are refused at once: ${inspect(options)}`, () => {
    const usable = { batchUrl: 'https://api.runpod.ai/v2/x', apiKey: API_KEY };
    assert.throws(() => runpodFetch({ ...usable, ...options }), isConfigurationError);
  });
}

// ---- results -------------------------------------------------------------------------------------------------

const RESULTS = `${BATCHES}/msgbatch_1/results`;

function page(n: number, of: number): Reply {
  const next: Record<string, string> = n + 1 < of ? { 'x-next-page': String(n + 1) } : {};
  return answered(200, `{"custom_id":"r${n}"}\n`, { 'content-type': 'application/x-jsonl', ...next });
}

function pageAsked({ input }: Received): number {
  return Number((input['query'] as Record<string, string>)['page'] ?? 0);
}

test('pages of results are one body, each fetched when the one before was read', async (t) => {
  const { fetch, server } = await setUp(t, (call) => page(pageAsked(call), 3));
  const response = await fetch(`${RESULTS}?partial=true`);
  assert.equal(response.headers.get('x-next-page'), null);
  const reader = response.body?.getReader();
  assert.ok(reader);
  const decoder = new TextDecoder();
  for (let n = 0; n < 3; n += 1) {
    const { value } = await reader.read();
    assert.equal(decoder.decode(value), `{"custom_id":"r${n}"}\n`);
    assert.equal(server.calls.length, n + 1, 'nothing is fetched ahead');
  }
  assert.equal((await reader.read()).done, true);
  assert.deepEqual(
    server.calls.map(({ input }) => input['query']),
    [{ partial: 'true' }, { partial: 'true', page: '1' }, { partial: 'true', page: '2' }],
  );
});

test('a body that nobody reads on fetches no further page', async (t) => {
  const { fetch, server } = await setUp(t, (call) => page(pageAsked(call), 100));
  const response = await fetch(RESULTS);
  for await (const _ of response.body as unknown as AsyncIterable<Uint8Array>) {
    if (server.calls.length === 2) break;
  }
  assert.equal(server.calls.length, 2);
});

test('an abort between two pages ends the body', async (t) => {
  const controller = new AbortController();
  const { fetch, server } = await setUp(t, (call) => page(pageAsked(call), 100));
  const reader = (await fetch(RESULTS, { signal: controller.signal })).body?.getReader();
  await reader?.read();
  controller.abort();
  assert.equal((await errorOf(Promise.resolve(reader?.read()))).name, 'AbortError');
  assert.equal(server.calls.length, 1);
});

test('a cancel ends the fetch of a page in flight', async (t) => {
  let cancelled: Promise<void> | undefined;
  const { fetch } = await setUp(t, (call, n) => {
    if (n === 0) return page(0, 3);
    assert.equal(pageAsked(call), 1);
    cancelled = reader?.cancel();
    return 'hang';
  });
  const reader = (await fetch(RESULTS)).body?.getReader();
  await reader?.read();
  assert.equal((await reader?.read())?.done, true);
  await cancelled;
});

test('a passing error of a later page is retried here, because the SDK cannot', async (t) => {
  const { fetch, clock } = await setUp(t, [
    page(0, 2),
    answered(529, {}, { 'retry-after': '3' }),
    answered(500, {}),
    page(1, 2),
  ]);
  assert.equal(await (await fetch(RESULTS)).text(), '{"custom_id":"r0"}\n{"custom_id":"r1"}\n');
  assert.deepEqual(clock.sleeps, [3_000, 500]);
});

test('an error of a later page that stays ends the body with it', async (t) => {
  const { fetch } = await setUp(t, (_, n) => (n === 0 ? page(0, 2) : answered(503, { type: 'error' })), {
    maxRetries: 2,
  });
  const response = await fetch(RESULTS);
  assert.ok(isServerError(await errorOf(response.text())));
});

test('a page that names itself as the next one ends the body with an error', async (t) => {
  const { fetch } = await setUp(t, () => answered(200, '\n', { 'x-next-page': '1' }));
  assert.match((await errorOf((await fetch(RESULTS)).text())).message, /names itself/);
});

// ---- large creates -------------------------------------------------------------------------------------------

const REQUESTS = Array.from({ length: 30 }, (_, n) => ({ custom_id: `r${n}`, text: 'x'.repeat(450_000) }));
// Four parts: 8 requests each, 6 in the last.
const LARGE = JSON.stringify({ requests: REQUESTS, note: 'kept' });
const PART = /^\/v1\/messages\/batches\/uploads\/([0-9a-f]{64})\/(\d+)$/;

function idsOf({ input }: Received): string[] {
  return JSON.parse(String(input['body'])).requests.map(
    (request: { custom_id: string }) => request.custom_id,
  );
}

function partOf({ input }: Received): number {
  return Number(PART.exec(String(input['path']))?.[2] ?? -1);
}

test('a large create goes up in parts and is made by reference, under one key', async (t) => {
  const { fetch, server } = await setUp(t, ({ input }) =>
    answered(200, input['method'] === 'PUT' ? {} : { id: 'msgbatch_1' }),
  );
  const response = await fetch(BATCHES, create(LARGE, 0, { 'x-batch-stage': 'email' }));
  assert.deepEqual(await response.json(), { id: 'msgbatch_1' });
  const made = server.calls.at(-1);
  const parts = server.calls.slice(0, -1).sort((a, b) => partOf(a) - partOf(b));
  assert.deepEqual(parts.map(partOf), [0, 1, 2, 3]);
  assert.deepEqual(
    parts.flatMap(idsOf),
    REQUESTS.map(({ custom_id }) => custom_id),
  );
  const [key] = new Set(parts.map(({ input }) => PART.exec(String(input['path']))?.[1]));
  assert.equal(made?.input['method'], 'POST');
  assert.deepEqual(JSON.parse(String(made?.input['body'])), { upload: { key, parts: 4 }, note: 'kept' });
  assert.equal(new Set(server.calls.map(keyOf)).size, 1);
  for (const call of server.calls) assert.equal(headersOf(call)['x-batch-stage'], 'email');
});

test('a part that failed in passing is sent again alone', async (t) => {
  let failures = 0;
  const { fetch, server } = await setUp(t, (call) => {
    if (partOf(call) !== 1) return answered(200, {});
    failures += 1;
    return ([http(524), 'drop', answered(529, {})] as const)[failures - 1] ?? answered(200, {});
  });
  assert.equal((await fetch(BATCHES, create(LARGE))).status, 200);
  const sent = server.calls.map(partOf);
  assert.equal(sent.filter((part) => part === 1).length, 4);
  assert.equal(sent.length, 4 + 3 + 1);
});

test("a part's refusal is the create's, its request numbered as in the whole batch", async (t) => {
  const error = { type: 'invalid_request_error', message: 'requests[3].custom_id: used by requests[0] too' };
  const { fetch, server } = await setUp(t, (call) =>
    partOf(call) === 1 ? answered(400, { type: 'error', error }) : answered(200, {}),
  );
  const response = await fetch(BATCHES, create(LARGE));
  assert.equal(response.status, 400);
  const body = (await response.json()) as { error: { message: string } };
  assert.equal(body.error.message, 'requests[11].custom_id: used by requests[8] too');
  assert.ok(
    server.calls.every(({ input }) => input['method'] === 'PUT'),
    'no batch is made',
  );
});

test("the SDK's retry of a large create sends the same parts under the same key", async (t) => {
  let creates = 0;
  const { fetch, server } = await setUp(t, ({ input }) => {
    if (input['method'] === 'PUT') return answered(200, {});
    creates += 1;
    return creates === 1 ? answered(500, {}) : answered(200, {});
  });
  await fetch(BATCHES, create(LARGE, 0));
  await fetch(BATCHES, create(LARGE, 1));
  const paths = server.calls.map(({ input }) => input['path']);
  assert.equal(new Set(paths).size, 5);
  assert.equal(new Set(server.calls.map(keyOf)).size, 1);
});

test('a large body that is not JSON is a 400', async (t) => {
  const { fetch } = await setUp(t, () => answered(200, {}));
  const response = await fetch(BATCHES, create(LARGE.slice(0, -20)));
  assert.equal(response.status, 400);
  assert.match(await response.text(), /not JSON/);
});

test('an abort stops the upload', async (t) => {
  const controller = new AbortController();
  const { fetch, server } = await setUp(t, () => {
    controller.abort();
    return 'hang';
  });
  const large = fetch(BATCHES, { ...create(LARGE), signal: controller.signal });
  assert.equal((await errorOf(large)).name, 'AbortError');
  assert.ok(server.calls.length <= 3);
});
