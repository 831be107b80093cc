import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import Anthropic from '@anthropic-ai/sdk';
import FormerAnthropic from 'anthropic-sdk-0';
import {
  isBatchNotEndedError,
  isConflictError,
  isConnectionError,
  isNotFoundError,
  isServerError,
} from '../src/errors.js';
import { AnthropicRouter, anthropicSide, BatchRouter, route } from '../src/rollout.js';
import type { BatchRequest } from '../src/types.js';
import { type FakeAnthropic, startFakeAnthropic } from './support/fakeAnthropic.js';
import { FakeClock } from './support/fakeClock.js';
import { fakeService } from './support/fakeService.js';
import { errorOf, setUp as setUpOurs } from './support/setup.js';

const MODEL = 'claude-haiku-4-5';
const LEADS = Array.from({ length: 40 }, (_, n) => `L${1000 + n}`);

function requestOf(leadId: string): BatchRequest {
  return {
    custom_id: `lead_${leadId}_email`,
    params: { system: 'You write e-mails.', messages: [{ role: 'user', content: `Write to ${leadId}.` }] },
    metadata: { leadId },
  };
}

async function setUp(t: TestContext, sampling = true) {
  const server = await startFakeAnthropic(t);
  const client = new Anthropic({ baseURL: server.url, apiKey: 'sk-ant-test', maxRetries: 0 });
  return { server, client, side: anthropicSide(client, { model: MODEL, sampling }) };
}

test("a batch goes through Anthropic's SDK and comes back in the adapter's own shapes", async (t) => {
  const { server, side } = await setUp(t);
  const failing = {
    ...requestOf('L2'),
    params: { messages: [{ role: 'user' as const, content: '[[error]]' }] },
  };
  const { id } = await side.createBatch('email', [requestOf('L1'), failing]);
  assert.deepEqual(server.batches[0]?.requests[0], {
    custom_id: 'lead_L1_email',
    params: {
      model: MODEL,
      max_tokens: 2048,
      system: 'You write e-mails.',
      messages: [{ role: 'user', content: 'Write to L1.' }],
      temperature: 0.2,
    },
  });
  const open = await side.getBatchStatus(id);
  assert.equal(open.processing_status, 'processing');
  assert.deepEqual(open.counts, { total: 2, succeeded: 0, errored: 0, pending: 2 });
  const ended = await side.getBatchStatus(id);
  assert.equal(ended.processing_status, 'ended');
  assert.deepEqual(ended.counts, { total: 2, succeeded: 1, errored: 1, pending: 0 });
  const { results } = await side.getBatchResults(id);
  assert.deepEqual(results, [
    {
      custom_id: 'lead_L2_email',
      status: 'errored',
      message: null,
      usage: null,
      error: { type: 'invalid_request_error', message: 'marked to fail' },
    },
    {
      custom_id: 'lead_L1_email',
      status: 'succeeded',
      message: { content: [{ type: 'text', text: '<managed lead_L1_email>' }] },
      usage: { input_tokens: 100, output_tokens: 10 },
      error: null,
      model: 'claude-haiku-4-5-20251001',
    },
  ]);
});

test('our own extensions stay here, and a schema goes in its own form', async (t) => {
  const { server, side } = await setUp(t, false);
  const schema = { type: 'object' };
  const request = requestOf('L1');
  await side.createBatch('email', [
    {
      ...request,
      params: {
        ...request.params,
        temperature: 0.7,
        top_p: 0.9,
        model: 'mistral',
        seed: 7,
        min_p: 0.1,
        on_invalid: 'retry',
        response_format: { type: 'json_schema', json_schema: { schema } },
      },
    },
  ]);
  const params = server.batches[0]?.requests[0]?.params ?? {};
  assert.deepEqual(Object.keys(params).sort(), [
    'max_tokens',
    'messages',
    'model',
    'output_config',
    'system',
  ]);
  assert.equal(params['model'], MODEL);
  assert.deepEqual(params['output_config'], { format: { type: 'json_schema', schema } });
});

test("errors are the adapter's, with its words in front and the SDK's error as cause", async (t) => {
  const { server, side } = await setUp(t);
  const missing = await errorOf(side.getBatchStatus('msgbatch_none'));
  assert.ok(isNotFoundError(missing));
  assert.match(missing.message, /^Failed to get batch status: 404 .*no batch msgbatch_none/);
  assert.deepEqual([missing.status, missing.type, missing.requestId], [404, 'not_found_error', 'req_1']);
  assert.ok(missing['cause'] instanceof Anthropic.NotFoundError);
  server.failCreates = 1;
  const failed = await errorOf(side.createBatch('email', [requestOf('L1')]));
  assert.ok(isServerError(failed));
  assert.match(failed.message, /^Failed to create batch: 500 /);
  const { id } = await side.createBatch('email', [requestOf('L1')]);
  const early = await errorOf(side.getBatchResults(id));
  assert.ok(isBatchNotEndedError(early));
  assert.match(early.message, /^Failed to get batch results: 400 Batch not yet complete/);
  const stop = new AbortController();
  stop.abort(new Error('mine'));
  assert.equal((await errorOf(side.getBatchStatus(id, { signal: stop.signal }))).message, 'mine');
});

test('an API that does not answer is a connection error, which a wait rides out', async () => {
  const client = new Anthropic({ baseURL: 'http://127.0.0.1:9', apiKey: 'sk-ant-test', maxRetries: 0 });
  const error = await errorOf(anthropicSide(client, { model: MODEL }).getBatchStatus('msgbatch_1'));
  assert.ok(isConnectionError(error));
  assert.match(error.message, /^Failed to get batch status: /);
});

test('one batch over the real clients of both services comes back as one, in request order', async (t) => {
  const { server, side } = await setUp(t);
  const { client: local, server: ours } = await setUpOurs(t, fakeService());
  const clock = new FakeClock();
  const router = new BatchRouter({ local, remote: side, localPercent: 50, enabled: () => true, clock });
  const { id } = await router.createBatch('email', LEADS.map(requestOf));
  const status = await router.waitForBatch(id, 60_000);
  assert.equal(status.counts.total, 40);
  const { results } = await router.getBatchResults(id);
  assert.deepEqual(
    results.map((result) => result.custom_id),
    LEADS.map((leadId) => `lead_${leadId}_email`),
  );
  for (const [n, leadId] of LEADS.entries()) {
    const here = route({ localPercent: 50, key: leadId }) === 'local';
    assert.match(results[n]?.message?.content[0].text ?? '', here ? /^<email / : /^<managed /);
  }
  assert.ok(server.batches.length === 1 && ours.calls.length > 0);
});

test('the local client is not made while nothing goes there', async (t) => {
  const server = await startFakeAnthropic(t);
  const { batches } = new AnthropicRouter({
    local: () => assert.fail('made'),
    remote: new Anthropic({ baseURL: server.url, apiKey: 'sk-ant-test', maxRetries: 0 }),
    key: (request) => request.custom_id,
    enabled: () => false,
  }).messages;
  assert.match((await batches.create({ requests: SDK_REQUESTS })).id, /^remote:/);
});

async function startTwo(t: TestContext): Promise<{ here: FakeAnthropic; there: FakeAnthropic }> {
  return { here: await startFakeAnthropic(t), there: await startFakeAnthropic(t) };
}

function routerOf({ here, there }: { here: FakeAnthropic; there: FakeAnthropic }, localPercent = 50) {
  const client = (baseURL: string) => new Anthropic({ baseURL, apiKey: 'sk-ant-test', maxRetries: 0 });
  return new AnthropicRouter({
    local: client(here.url),
    remote: client(there.url),
    key: (request) => request.custom_id.split('_')[1] ?? '',
    enabled: () => true,
    localPercent,
  });
}

const SDK_REQUESTS = LEADS.map(
  (leadId): Anthropic.Messages.BatchCreateParams.Request => ({
    custom_id: `lead_${leadId}_email`,
    params: { model: MODEL, max_tokens: 100, messages: [{ role: 'user', content: `Write to ${leadId}.` }] },
  }),
);

test("a service on Anthropic's SDK has its batches on two sides through the same calls", async (t) => {
  const servers = await startTwo(t);
  const { batches } = routerOf(servers).messages;
  const created = await batches.create({ requests: SDK_REQUESTS });
  assert.match(created.id, /^split:/);
  assert.equal(created.request_counts.processing, 40);
  assert.deepEqual([servers.here.batches.length, servers.there.batches.length], [1, 1]);
  assert.equal((await batches.retrieve(created.id)).processing_status, 'in_progress');
  const ended = await batches.retrieve(created.id);
  assert.deepEqual([ended.processing_status, ended.request_counts.succeeded], ['ended', 40]);
  const ids: string[] = [];
  for await (const line of await batches.results(created.id)) {
    assert.equal(line.result.type, 'succeeded');
    ids.push(line.custom_id);
  }
  assert.deepEqual(
    ids,
    SDK_REQUESTS.map((request) => request.custom_id),
  );
});

test("so has one on the SDK's former major version", async (t) => {
  const { here, there } = await startTwo(t);
  const client = (baseURL: string) => new FormerAnthropic({ baseURL, apiKey: 'sk-ant-test', maxRetries: 0 });
  const { batches } = new AnthropicRouter({
    local: () => client(here.url),
    remote: client(there.url),
    key: (request) => request.custom_id,
    enabled: () => true,
    localPercent: 50,
  }).messages;
  const { id } = await batches.create({ requests: SDK_REQUESTS });
  for (const status of ['in_progress', 'ended']) {
    assert.equal((await batches.retrieve(id)).processing_status, status);
  }
  const ids: string[] = [];
  for await (const { custom_id } of await batches.results(id)) ids.push(custom_id);
  assert.deepEqual(
    ids,
    SDK_REQUESTS.map((request) => request.custom_id),
  );
  const side = anthropicSide(client(there.url), { model: MODEL });
  assert.equal((await side.getBatchStatus(there.batches[0]?.id ?? '')).processing_status, 'ended');
});

test("its errors are the SDK's own", async (t) => {
  const servers = await startTwo(t);
  const anthropic = routerOf(servers);
  const missing = await errorOf(anthropic.messages.batches.retrieve('remote:msgbatch_none'));
  assert.ok(missing instanceof Anthropic.NotFoundError);
  servers.here.failCreates = 1;
  const failed = await errorOf(anthropic.messages.batches.create({ requests: SDK_REQUESTS }));
  assert.ok(failed instanceof Anthropic.InternalServerError);
  const half = await routerOf(servers, 0).messages.batches.retrieve(servers.there.batches[0]?.id ?? '');
  assert.equal(half.processing_status, 'canceling');
});

test('a cancel through it stops both halves', async (t) => {
  const anthropic = routerOf(await startTwo(t));
  const { id } = await anthropic.messages.batches.create({ requests: SDK_REQUESTS });
  assert.equal((await anthropic.messages.batches.cancel(id)).processing_status, 'canceling');
  await anthropic.messages.batches.retrieve(id);
  const batch = await anthropic.messages.batches.retrieve(id);
  assert.deepEqual([batch.processing_status, batch.request_counts.canceled], ['ended', 40]);
  const refused = await errorOf(anthropic.messages.batches.cancel(id));
  assert.ok(refused instanceof Anthropic.ConflictError && !isConflictError(refused));
});
