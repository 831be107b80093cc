import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  isBatchNotEndedError,
  isConflictError,
  isInvalidRequestError,
  isNotFoundError,
  isWaitTimeoutError,
  ServerError,
} from '../src/errors.js';
import { BatchRouter, type BatchRouterOptions, Comparison, route } from '../src/rollout.js';
import type { BatchRequest } from '../src/types.js';
import { FakeClock } from './support/fakeClock.js';
import { MemorySide } from './support/memorySide.js';
import { errorOf } from './support/setup.js';

const STAGE = 'email';
const LEADS = Array.from({ length: 200 }, (_, n) => `L${1000 + n}`);

function requestOf(leadId: string): BatchRequest {
  return {
    custom_id: `lead_${leadId}_${STAGE}`,
    params: { messages: [{ role: 'user', content: `Write to ${leadId}.` }] },
  };
}

const REQUESTS = LEADS.map(requestOf);
const IDS = REQUESTS.map((request) => request.custom_id);

function setUp(options: Partial<BatchRouterOptions> = {}) {
  const local = new MemorySide('batch', 1);
  const remote = new MemorySide('msgbatch', 5);
  const clock = new FakeClock();
  const router = new BatchRouter({ local, remote, clock, enabled: () => true, localPercent: 30, ...options });
  return { router, local, remote, clock };
}

function plainIds(ids: readonly string[] | undefined): string[] {
  return (ids ?? []).map((id) => id.replace(/^[0-9a-z]+-/, ''));
}

test('each lead goes to the side that route says, and each side keeps the order of the requests', async () => {
  const { router, local, remote } = setUp();
  await router.createBatch(STAGE, REQUESTS);
  const of = (side: string) =>
    IDS.filter((_, n) => route({ localPercent: 30, key: LEADS[n] ?? '' }) === side);
  assert.deepEqual(plainIds(local.created[0]), of('local'));
  assert.deepEqual(plainIds(remote.created[0]), of('remote'));
  assert.ok(local.created[0]?.length && remote.created[0]?.length);
});

for (const reversed of [false, true]) {
  test(`a split batch is read back as one, in request order, where a side gives its results ${reversed ? 'in reverse' : 'in order'}`, async () => {
    const { router, local, remote } = setUp();
    remote.reversed = reversed;
    const { id } = await router.createBatch(STAGE, REQUESTS);
    assert.match(id, /^split:batch_\w+:msgbatch_\w+$/);
    local.endAll();
    remote.endAll();
    const { results } = await router.getBatchResults(id);
    assert.deepEqual(
      results.map((result) => result.custom_id),
      IDS,
    );
    assert.ok(results.every((result, n) => result.message?.content[0].text === `re: Write to ${LEADS[n]}.`));
  });
}

test('each half has a key of its own, since both sides may keep theirs at one place', async () => {
  const { router, local, remote } = setUp();
  await router.createBatch(STAGE, REQUESTS, { idempotencyKey: 'monday', priority: 'low' });
  const optionsOf = (side: MemorySide) => [...side.batches.values()].map(({ options }) => options);
  assert.deepEqual(optionsOf(local), [{ idempotencyKey: 'monday:half:local', priority: 'low' }]);
  assert.deepEqual(optionsOf(remote), [{ idempotencyKey: 'monday:half:remote', priority: 'low' }]);
});

test('an upload key names one half only, and no copy', async () => {
  const { router, local, remote } = setUp({ comparison: new Comparison(), shadowPercent: 100 });
  await router.createBatch(STAGE, REQUESTS, { uploadKey: 'monday' });
  await router.settled();
  const keys = [local, remote].flatMap((side) =>
    [...side.batches.values()].map(({ options }) => options.uploadKey),
  );
  assert.deepEqual(keys.sort(), [
    'monday:copy:local',
    'monday:copy:remote',
    'monday:half:local',
    'monday:half:remote',
  ]);
});

test('nobody is called for a copy', async () => {
  const { router, local, remote } = setUp({
    comparison: new Comparison(),
    shadowPercent: 100,
    localPercent: 0,
  });
  await router.createBatch(STAGE, REQUESTS, { callbackUrl: 'https://app.test/ended', onUpload: () => {} });
  await router.settled();
  const optionsOf = (side: MemorySide) =>
    [...side.batches.values()].map(({ options }) => Object.keys(options));
  assert.deepEqual(optionsOf(remote), [['callbackUrl', 'onUpload']]);
  assert.deepEqual(optionsOf(local), [[]]);
});

test('a batch on one side goes there as it is', async () => {
  for (const [localPercent, idForm] of [
    [100, /^local:batch_\w+$/],
    [0, /^remote:msgbatch_\w+$/],
  ] as const) {
    const { router, local, remote } = setUp({ localPercent });
    const { id } = await router.createBatch(STAGE, REQUESTS, { idempotencyKey: 'monday' });
    assert.match(id, idForm);
    const [used, other] = localPercent === 100 ? [local, remote] : [remote, local];
    assert.deepEqual([used.created, other.created], [[IDS], []]);
    assert.equal([...used.batches.values()][0]?.options.idempotencyKey, 'monday');
    used.endAll();
    assert.equal((await router.getBatchStatus(id)).id, id);
    assert.equal((await router.getBatchResults(id)).results.length, IDS.length);
  }
});

test('a rollback takes effect with the next create, and batches made before it are read where they are', async () => {
  let localPercent = 100;
  const { router, local, remote } = setUp({ localPercent: () => localPercent });
  const first = await router.createBatch(STAGE, REQUESTS);
  localPercent = 0;
  const second = await router.createBatch(STAGE, REQUESTS);
  assert.deepEqual([local.created.length, remote.created.length], [1, 1]);
  local.endAll();
  assert.equal((await router.getBatchStatus(first.id)).processing_status, 'ended');
  assert.equal((await router.getBatchStatus(second.id)).processing_status, 'submitted');
});

test('while the flag is off everything goes to the remote side, whatever the percentage', async (t) => {
  const { USE_LOCAL_LLM: before } = process.env;
  t.after(() => {
    delete process.env['USE_LOCAL_LLM'];
    if (before !== undefined) process.env['USE_LOCAL_LLM'] = before;
  });
  const [local, remote] = [new MemorySide('batch'), new MemorySide('msgbatch')];
  const router = new BatchRouter({ local, remote, localPercent: 100 });
  delete process.env['USE_LOCAL_LLM'];
  await router.createBatch(STAGE, REQUESTS);
  process.env['USE_LOCAL_LLM'] = '1';
  await router.createBatch(STAGE, REQUESTS);
  assert.deepEqual([local.created.length, remote.created.length], [1, 1]);
});

test('the lead sticks by metadata, by the custom_id, or by a key of the caller', async () => {
  const percent = 50;
  const sideOf = async (request: BatchRequest, options: Partial<BatchRouterOptions> = {}) => {
    const { router } = setUp({ localPercent: percent, ...options });
    return (await router.createBatch('sales_intel', [request])).id.split(':')[0];
  };
  for (const leadId of LEADS.slice(0, 20)) {
    const side = route({ localPercent: percent, key: leadId });
    const params = { messages: [{ role: 'user' as const, content: 'Hello' }] };
    assert.equal(await sideOf({ custom_id: `lead_${leadId}_sales_intel`, params }), side);
    assert.equal(await sideOf({ custom_id: 'anything', params, metadata: { leadId } }), side);
    assert.equal(await sideOf({ custom_id: leadId, params }), side);
    assert.equal(
      await sideOf({ custom_id: 'anything', params, mine: leadId }, { key: ({ mine }) => mine }),
      side,
    );
  }
});

test('an id from before the router is read at the side that makes such ids', async () => {
  const { router, local, remote } = setUp();
  const ours = await local.createBatch(STAGE, REQUESTS.slice(0, 2));
  const theirs = await remote.createBatch(STAGE, REQUESTS.slice(0, 3));
  assert.equal((await router.getBatchStatus(ours.id)).counts.total, 2);
  assert.equal((await router.getBatchStatus(theirs.id)).counts.total, 3);
});

test('the status of a split batch is the sum of its halves, and it ends when both have', async () => {
  const { router, local, remote } = setUp();
  const { id } = await router.createBatch(STAGE, REQUESTS);
  assert.equal((await router.getBatchStatus(id)).processing_status, 'submitted');
  local.endAll();
  const between = await router.getBatchStatus(id);
  const here = local.created[0]?.length ?? 0;
  assert.equal(between.processing_status, 'processing');
  assert.deepEqual(between.counts, { total: 200, succeeded: here, errored: 0, pending: 200 - here });
  assert.equal(between.ended_at, null);
  remote.endAll();
  const ended = await router.getBatchStatus(id);
  assert.equal(ended.processing_status, 'ended');
  assert.equal(ended.ended_at, '2026-08-01T00:05:00.000Z');
  assert.deepEqual(ended.counts, { total: 200, succeeded: 200, errored: 0, pending: 0 });
});

test('before the end of either half there are no results, and not a line is given', async () => {
  const { router, local, remote } = setUp();
  const { id } = await router.createBatch(STAGE, REQUESTS);
  const lines: unknown[] = [];
  local.endAll();
  const error = await errorOf(
    (async () => {
      for await (const line of router.streamBatchResults(id)) lines.push(line);
    })(),
  );
  assert.ok(isBatchNotEndedError(error));
  assert.match(error.message, /Batch not yet complete/);
  assert.deepEqual(lines, []);
  assert.equal(local.closed, 1);
  remote.endAll();
  assert.equal((await router.getBatchResults(id)).results.length, 200);
});

test('partial results come in request order too', async () => {
  const { router } = setUp();
  const { id } = await router.createBatch(STAGE, REQUESTS);
  const { results } = await router.getBatchResults(id, { partial: true });
  const ids = results.map((result) => result.custom_id);
  assert.ok(ids.length > 50 && ids.length < 150);
  assert.deepEqual(
    ids,
    IDS.filter((customId) => ids.includes(customId)),
  );
});

test('a reader that stops early holds little and closes both halves', async () => {
  const { router, local, remote } = setUp();
  const { id } = await router.createBatch(STAGE, REQUESTS);
  local.endAll();
  remote.endAll();
  for await (const { custom_id } of router.streamBatchResults(id)) if (custom_id === IDS[9]) break;
  assert.ok(local.given + remote.given <= 12, `${local.given} + ${remote.given}`);
  assert.deepEqual([local.closed, remote.closed], [1, 1]);
});

test('when the local half can not be made the remote one is cancelled and the create fails', async () => {
  const { router, local, remote } = setUp();
  local.createError = new ServerError('Failed to create batch: 503 no', { status: 503, type: 'api_error' });
  const error = await errorOf(router.createBatch(STAGE, REQUESTS));
  assert.equal(error, local.createError);
  assert.deepEqual(
    [...remote.batches.values()].map(({ canceled }) => canceled),
    [true],
  );
});

test('when the remote half can not be made nothing is made', async () => {
  const { router, local, remote } = setUp();
  remote.createError = new ServerError('Failed to create batch: 529 no', {
    status: 529,
    type: 'overloaded_error',
  });
  assert.equal(await errorOf(router.createBatch(STAGE, REQUESTS)), remote.createError);
  assert.equal(local.batches.size, 0);
});

test('a cancel stops both halves; one that has ended is no error unless both have', async () => {
  const { router, local, remote } = setUp();
  const { id } = await router.createBatch(STAGE, REQUESTS);
  local.endAll();
  const status = await router.cancelBatch(id);
  const here = local.created[0]?.length ?? 0;
  assert.deepEqual(status.counts, {
    total: 200,
    succeeded: here,
    errored: 0,
    pending: 0,
    canceled: 200 - here,
  });
  assert.ok(isConflictError(await errorOf(router.cancelBatch(id))));
  assert.deepEqual([local.batches.size, remote.batches.size], [1, 1]);
});

test('a wait for a split batch lasts until both halves have ended', async () => {
  const { router, local, remote, clock } = setUp();
  const { id } = await router.createBatch(STAGE, REQUESTS);
  local.endAll();
  clock.onSleep = (n) => n === 3 && remote.endAll();
  const seen: string[] = [];
  const status = await router.waitForBatch(id, 60_000, {
    onProgress: ({ processing_status }) => seen.push(processing_status),
  });
  assert.equal(status.id, id);
  assert.deepEqual(seen, ['processing', 'processing', 'processing', 'ended']);
  assert.deepEqual(clock.sleeps, [1000, 1500, 2250]);
});

test('a wait that is over names the batch as the caller knows it', async () => {
  const { router } = setUp();
  const { id } = await router.createBatch(STAGE, REQUESTS);
  const error = await errorOf(router.waitForBatch(id, 5000));
  assert.ok(isWaitTimeoutError(error));
  assert.equal(error.message, `Batch ${id} did not complete within 5000ms`);
});

test('a custom_id without room for its place is named, whether or not its own batch is split', async () => {
  const long = { ...requestOf('L1'), custom_id: 'x'.repeat(255) };
  const { router, local, remote } = setUp();
  const error = await errorOf(router.createBatch(STAGE, [requestOf('L2'), long]));
  assert.ok(isInvalidRequestError(error));
  assert.equal(error.param, 'requests[1].custom_id');
  assert.match(error.message, /^Failed to create batch: 400 .* at most 254 characters/);
  assert.ok(isInvalidRequestError(await errorOf(router.createBatch(STAGE, [long]))));
  assert.deepEqual([local.batches.size, remote.batches.size], [0, 0]);
  const whole = setUp({ localPercent: 100 });
  await whole.router.createBatch(STAGE, [long]);
});

test('a batch that neither side knows is not found', async () => {
  const { router } = setUp();
  for (const id of ['local:batch_0', 'remote:none', 'split:batch_0:none', 'split:', 'none', '']) {
    assert.ok(isNotFoundError(await errorOf(router.getBatchStatus(id))), id);
  }
});

test('a module of four functions is a side; only a cancel needs a fifth', async () => {
  const side = new MemorySide('former');
  const former = {
    createBatch: (stage: string, requests: BatchRequest[]) => side.createBatch(stage, requests),
    getBatchStatus: (id: string) => side.getBatchStatus(id),
    getBatchResults: (id: string) => side.getBatchResults(id),
  };
  const { router } = setUp({ remote: former, localPercent: 0 });
  const { id } = await router.createBatch(STAGE, REQUESTS);
  const error = await errorOf(router.cancelBatch(id));
  assert.match(error.message, /has no cancelBatch/);
  side.endAll();
  assert.equal((await router.getBatchResults(id)).results.length, 200);
});
