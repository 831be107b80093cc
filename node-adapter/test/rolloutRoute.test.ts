import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { type TestContext, test } from 'node:test';
import { isConfigurationError } from '../src/errors.js';
import { pointOf } from '../src/rollout/route.js';
import { localPercentOfEnvironment, route } from '../src/rollout.js';

const LEADS = Array.from({ length: 20_000 }, (_, n) => `L${1000 + n}`);
const PERCENTAGES = [0, 0.1, 1, 10, 12.5, 50, 99.9, 100];

function localLeads(localPercent: number): Set<string> {
  return new Set(LEADS.filter((key) => route({ localPercent, key }) === 'local'));
}

function setEnvironment(t: TestContext, values: Record<string, string>): void {
  for (const name of ['USE_LOCAL_LLM', 'LOCAL_BATCH_URL', 'LOCAL_LLM_PERCENT']) {
    const before = process.env[name];
    t.after(() => {
      delete process.env[name];
      if (before !== undefined) process.env[name] = before;
    });
    delete process.env[name];
  }
  Object.assign(process.env, values);
}

test('each percentage, fractions too, gives the local side its share of the leads', () => {
  for (const percent of PERCENTAGES) {
    const share = (localLeads(percent).size / LEADS.length) * 100;
    assert.ok(Math.abs(share - percent) < 1, `${share} instead of ${percent}`);
  }
  assert.equal(localLeads(0).size, 0);
  assert.equal(localLeads(100).size, LEADS.length);
});

test('raising the percentage only moves leads to the local side, never back', () => {
  let before = new Set<string>();
  for (const percent of PERCENTAGES) {
    const now = localLeads(percent);
    assert.ok([...before].every((lead) => now.has(lead)));
    before = now;
  }
});

test('a lead lies at the same point in every release', () => {
  const points = ['L1001', 'L1002', 'ключ 🦔', ''].map((key) => pointOf(key).toFixed(6));
  assert.deepEqual(points, ['78.320850', '58.732522', '29.006736', '88.941599']);
});

test('the rollout can be imported and required by its own name', async () => {
  const esm = await import('llm-batch-adapter/rollout');
  const cjs = createRequire(import.meta.url)('llm-batch-adapter/rollout');
  assert.deepEqual(Object.keys(esm).sort(), Object.keys(cjs).sort());
  assert.equal(cjs.route({ localPercent: 50, key: 'L1' }), esm.route({ localPercent: 50, key: 'L1' }));
});

test('a function is asked at each call', () => {
  let localPercent = 100;
  const side = () => route({ localPercent: () => localPercent, key: 'L1' });
  assert.equal(side(), 'local');
  localPercent = 0;
  assert.equal(side(), 'remote');
});

for (const localPercent of [-0.1, 100.1, Number.NaN, Number.POSITIVE_INFINITY]) {
  test(`${localPercent} is no percentage`, () => {
    assert.throws(
      () => route({ localPercent, key: 'L1' }),
      (error) => isConfigurationError(error) && error.param === 'localPercent',
    );
  });
}

const ON = { USE_LOCAL_LLM: 'true', LOCAL_BATCH_URL: 'https://api.runpod.ai/v2/abc' };

test('the environment gives a share only where the flag is on and the URL is set', (t) => {
  setEnvironment(t, {});
  assert.equal(localPercentOfEnvironment(), 0);
  Object.assign(process.env, ON);
  assert.equal(localPercentOfEnvironment(), 100);
  process.env['LOCAL_LLM_PERCENT'] = '12.5';
  assert.equal(localPercentOfEnvironment(), 12.5);
  for (const off of ['', '0', 'false', 'off', 'no', 'ture']) {
    process.env['USE_LOCAL_LLM'] = off;
    assert.equal(localPercentOfEnvironment(), 0, off);
  }
  for (const on of ['1', 'TRUE', 'yes', ' on ']) {
    process.env['USE_LOCAL_LLM'] = on;
    assert.equal(localPercentOfEnvironment(), 12.5, on);
  }
  delete process.env['LOCAL_BATCH_URL'];
  assert.equal(localPercentOfEnvironment(), 0);
  assert.equal(route({ key: 'L1' }), 'remote');
});

test('a percentage in the environment that is none is named', (t) => {
  setEnvironment(t, { ...ON, LOCAL_LLM_PERCENT: '10%' });
  assert.throws(
    () => route({ key: 'L1' }),
    (error) => isConfigurationError(error) && error.param === 'LOCAL_LLM_PERCENT',
  );
});
