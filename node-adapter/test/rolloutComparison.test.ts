import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { isConfigurationError } from '../src/errors.js';
import { Tally } from '../src/rollout/comparison.js';
import {
  BatchRouter,
  type BatchRouterOptions,
  Comparison,
  type ComparisonOptions,
  formatComparison,
  type RolloutPrices,
} from '../src/rollout.js';
import type { BatchRequest, BatchResult } from '../src/types.js';
import { MemorySide } from './support/memorySide.js';
import { PACKAGE_ROOT } from './support/runNode.js';

const PRICES: RolloutPrices = {
  workerUsdPerSecond: { mistral: 0.001 },
  managedUsdPerMillionTokens: { mistral: { input: 1, output: 5 }, mis: { input: 100, output: 100 } },
};

function requestOf(n: number): BatchRequest {
  const content = n === 3 ? 'fail' : `Write to L${n}.`;
  return { custom_id: `lead_L${n}_email`, params: { messages: [{ role: 'user', content }] } };
}

const REQUESTS = Array.from({ length: 100 }, (_, n) => requestOf(n));

function setUp(options: Partial<BatchRouterOptions> = {}, comparisonOptions: ComparisonOptions = {}) {
  const local = new MemorySide('batch', 1);
  const remote = new MemorySide('msgbatch', 5);
  const comparison = new Comparison({ prices: PRICES, ...comparisonOptions });
  const router = new BatchRouter({ local, remote, enabled: () => true, comparison, ...options });
  const endAll = () => {
    local.endAll();
    remote.endAll();
  };
  return { router, local, remote, comparison, endAll };
}

test('the figures of each side are those of the batches that were read', async () => {
  const { router, local, comparison, endAll } = setUp({ localPercent: 40 });
  const { id } = await router.createBatch('email', REQUESTS);
  endAll();
  await router.getBatchResults(id);
  await router.settled();
  const report = comparison.report();
  const here = local.created[0]?.length ?? 0;
  assert.deepEqual([report.local.requests, report.remote.requests], [here, 100 - here]);
  assert.equal(report.local.errored + report.remote.errored, 1);
  assert.deepEqual({ ...report.local.errors, ...report.remote.errors }, { model_error: 1 });
  assert.equal(report.local.errorRate, report.local.errored / here);
  assert.deepEqual(report.local.turnaroundMs, { p50: 60_000, p95: 60_000 });
  assert.deepEqual(report.remote.turnaroundMs, { p50: 300_000, p95: 300_000 });
  assert.deepEqual(report.local.latencyMs, { p50: 500, p95: 500 });
  assert.equal(report.local.inputTokens, 100 * report.local.succeeded);
  // A second of a worker a request; 100 tokens at $1 and 10 at $5 a million.
  assert.equal(report.local.costUsd?.toFixed(6), (0.001 * here).toFixed(6));
  assert.equal(report.remote.costUsd?.toFixed(8), (0.00015 * report.remote.succeeded).toFixed(8));
});

test('a batch that is read again does not count again, and half a reading does not count', async () => {
  const { router, comparison, endAll } = setUp({ localPercent: 100 });
  const { id } = await router.createBatch('email', REQUESTS);
  await router.getBatchResults(id, { partial: true });
  endAll();
  for await (const _ of router.streamBatchResults(id)) break;
  await router.settled();
  assert.equal(comparison.report().local.requests, 0);
  for (const _ of [1, 2]) await router.getBatchResults(id);
  await router.settled();
  assert.equal(comparison.report().local.requests, 100);
});

test('percentiles are by nearest rank over requests, a batch counting as often as it has requests', async () => {
  const [quick, slow] = [new MemorySide('msgbatch', 1), new MemorySide('msgbatch', 5)];
  const comparison = new Comparison();
  for (const [side, requests] of [
    [quick, REQUESTS.slice(0, 94)],
    [slow, REQUESTS.slice(0, 6)],
  ] as const) {
    const { id } = await side.createBatch('email', requests);
    side.endAll();
    const tally = new Tally();
    for await (const result of side.streamBatchResults(id)) tally.add(result);
    comparison.record('remote', `${id}-${requests.length}`, tally, await side.getBatchStatus(id));
  }
  assert.deepEqual(comparison.report().remote.turnaroundMs, { p50: 60_000, p95: 300_000 });
});

test('without a price for all of it there is no cost', async () => {
  for (const prices of [undefined, { workerUsdPerSecond: {}, managedUsdPerMillionTokens: {} }]) {
    const comparison = new Comparison(prices === undefined ? {} : { prices });
    const { router, endAll } = setUp({ localPercent: 40, comparison });
    const { id } = await router.createBatch('email', REQUESTS);
    endAll();
    await router.getBatchResults(id);
    await router.settled();
    const { local, remote } = comparison.report();
    assert.deepEqual([local.costUsd, remote.costUsd], [null, null]);
  }
});

test('copies run on the other side and never change what the caller gets', async () => {
  const { router, local, remote, comparison, endAll } = setUp({ localPercent: 0, shadowPercent: 30 });
  const { id } = await router.createBatch('email', REQUESTS, { idempotencyKey: 'monday' });
  assert.match(id, /^remote:/);
  await router.settled();
  const copied = local.created[0] ?? [];
  assert.ok(copied.length > 15 && copied.length < 45, `${copied.length}`);
  assert.equal([...local.batches.values()][0]?.options.idempotencyKey, 'monday:copy:local');
  remote.endAll();
  const { results } = await router.getBatchResults(id);
  assert.deepEqual(
    results.map((result) => result.custom_id),
    REQUESTS.map((request) => request.custom_id),
  );
  assert.equal(await router.compareShadows(), 1, 'the copy has not ended');
  endAll();
  assert.equal(await router.compareShadows(), 0);
  const report = comparison.report();
  const { both, localOnly, remoteOnly, neither } = report.pairs;
  assert.equal(both + neither, copied.length);
  assert.deepEqual([localOnly, remoteOnly], [0, 0]);
  assert.equal(report.local.requests, copied.length);
  assert.equal(report.remote.requests, 100);
});

test('at half and half copies run in both directions, and are compared as one batch', async () => {
  const { router, local, remote, comparison, endAll } = setUp({ localPercent: 50, shadowPercent: 100 });
  await router.createBatch('email', REQUESTS);
  await router.settled();
  assert.equal(local.created.length + remote.created.length, 4);
  endAll();
  assert.equal(await router.compareShadows(), 0);
  const { both, neither } = comparison.report().pairs;
  assert.deepEqual([both, neither], [99, 1]);
});

test('a copy that fails is counted, and nobody else hears of it', async () => {
  const { router, local, comparison } = setUp({ localPercent: 0, shadowPercent: 100 });
  local.createError = new Error('down');
  await router.createBatch('email', REQUESTS);
  await router.settled();
  assert.equal(comparison.report().shadowsFailed, 1);
  assert.equal(await router.compareShadows(), 0);
});

test('a comparison that failed half way, or that runs twice, counts no pair twice', async () => {
  const { router, remote, comparison, endAll } = setUp({ localPercent: 0, shadowPercent: 100 });
  await router.createBatch('email', REQUESTS);
  await router.createBatch('email', REQUESTS);
  await router.settled();
  endAll();
  const stream = remote.streamBatchResults.bind(remote);
  let reads = 0;
  remote.streamBatchResults = async function* (id) {
    reads += 1;
    if (reads === 2) {
      yield* [(await stream(id).next()).value as BatchResult];
      throw new Error('cut');
    }
    yield* stream(id);
  };
  await assert.rejects(router.compareShadows(), /cut/);
  assert.deepEqual(await Promise.all([router.compareShadows(), router.compareShadows()]), [0, 0]);
  const { both, neither } = comparison.report().pairs;
  assert.deepEqual([both, neither], [198, 2]);
});

test('while the flag is off no copy is made', async () => {
  const { router, local } = setUp({ localPercent: 0, shadowPercent: 100, enabled: () => false });
  await router.createBatch('email', REQUESTS);
  await router.settled();
  assert.equal(local.batches.size, 0);
});

test('a copy whose batch is gone is given up', async () => {
  const { router, local, endAll } = setUp({ localPercent: 0, shadowPercent: 100 });
  await router.createBatch('email', REQUESTS);
  await router.settled();
  endAll();
  local.batches.clear();
  assert.equal(await router.compareShadows(), 0);
});

test('results that can not be counted reach the caller all the same', async () => {
  const side = new MemorySide('former');
  const former = {
    createBatch: side.createBatch.bind(side),
    getBatchStatus: side.getBatchStatus.bind(side),
    getBatchResults: async (id: string) => {
      const { results } = await side.getBatchResults(id);
      return { results: results.map(({ usage: _, ...result }) => result as BatchResult) };
    },
  };
  const { router, comparison } = setUp({ remote: former, localPercent: 0 });
  const { id } = await router.createBatch('email', REQUESTS);
  side.endAll();
  assert.equal((await router.getBatchResults(id)).results.length, 100);
  await router.settled();
  assert.equal(comparison.report().remote.requests, 0);
});

test('samples are off by default; asked for, there are at most so many', async () => {
  for (const [samples, kept] of [
    [undefined, 0],
    [5, 5],
  ] as const) {
    const { router, comparison, endAll } = setUp(
      { localPercent: 0, shadowPercent: 100 },
      samples === undefined ? {} : { samples },
    );
    await router.createBatch('email', REQUESTS);
    await router.settled();
    endAll();
    await router.compareShadows();
    const report = comparison.report();
    assert.equal(report.samples.length, kept);
    if (kept === 0) continue;
    const [first] = report.samples;
    assert.deepEqual(first?.params, REQUESTS[0]?.params);
    assert.equal(first?.local.text, 're: Write to L0.');
    assert.equal(first?.remote.status, 'succeeded');
  }
});

test('copies without a comparison are refused', () => {
  assert.throws(
    () => new BatchRouter({ remote: new MemorySide('msgbatch'), shadowPercent: 1 }),
    (error) => isConfigurationError(error) && error.param === 'shadowPercent',
  );
});

test('a wrong shadowPercent is said by the create, before anything is made', async () => {
  const { router, local, remote } = setUp({ localPercent: 50, shadowPercent: 101 });
  await assert.rejects(router.createBatch('email', REQUESTS), isConfigurationError);
  assert.deepEqual([local.batches.size, remote.batches.size], [0, 0]);
});

async function comparedReport() {
  const { router, comparison, endAll } = setUp({ localPercent: 0, shadowPercent: 100 }, { samples: 1 });
  const { id } = await router.createBatch('email', REQUESTS);
  await router.settled();
  endAll();
  await router.getBatchResults(id);
  await router.compareShadows();
  return comparison.report();
}

test('the report as Markdown is the table that the migration page shows', async () => {
  const text = formatComparison(await comparedReport(), { style: 'markdown' });
  const page = readFileSync(join(PACKAGE_ROOT, '../docs/migration.md'), 'utf8');
  const header = text.split('\n').slice(0, 2).join('\n');
  assert.ok(page.includes(header));
  for (const row of text.split('\n').filter((line) => line.startsWith('| '))) {
    assert.ok(page.includes(`\n${row.split('|').slice(0, 2).join('|')}|`), row);
  }
  assert.match(text, /^\| error rate \| 1\.00 % \| 1\.00 % \|$/m);
  assert.match(text, /^\| batch p50, s \| 60\.00 \| 300\.00 \|$/m);
  assert.match(text, /^\| cost of 1,000 requests, \$ \| 1\.00 \| 0\.15 \|$/m);
  assert.match(text, /^Ran on both sides: 100 requests\. Answered by both 99, .* neither 1\.$/m);
});

test('the migration page gives the prices of the price file', () => {
  const page = readFileSync(join(PACKAGE_ROOT, '../docs/migration.md'), 'utf8');
  const file = JSON.parse(readFileSync(join(PACKAGE_ROOT, '../runpod/prices.json'), 'utf8'));
  const gpuOf = (model: string) => file.gpu_usd_per_second[file.models[model].gpu].flex;
  const { mistral, 'llama-70b': llama } = file.managed_usd_per_million_tokens;
  assert.ok(page.includes(`{ mistral: ${gpuOf('mistral')}, 'llama-70b': 2 * ${gpuOf('llama-70b')} }`));
  assert.equal(file.models['llama-70b'].count, 2);
  assert.ok(page.includes(`'claude-haiku-4-5': { input: ${mistral.input}, output: ${mistral.output} }`));
  assert.ok(page.includes(`'claude-sonnet-4-5': { input: ${llama.input}, output: ${llama.output} }`));
});

test('the plain report is in columns, and shows no prompt unless asked', async () => {
  const report = await comparedReport();
  const text = formatComparison(report);
  assert.match(text, /^requests +100 +100$/m);
  assert.ok(!text.includes('Write to'));
  const shown = formatComparison(report, { samples: true });
  assert.match(shown, /^### lead_L0_email$/m);
  assert.match(shown, /"content": "Write to L0\."/);
  assert.match(shown, /^re: Write to L0\.$/m);
});

test('an empty report has no figures, and says so', () => {
  const text = formatComparison(new Comparison().report());
  assert.match(text, /^error rate +n\/a +n\/a$/m);
  assert.match(text, /^tokens in a request +n\/a +n\/a$/m);
});
