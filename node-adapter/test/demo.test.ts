import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Progress } from '../examples/demo/progress.js';
import { percentile } from '../examples/demo/report.js';
import { API_KEY, type FakeRunpod, startFakeRunpod } from './support/fakeRunpod.js';
import { type Fault, fakeService } from './support/fakeService.js';
import { PACKAGE_ROOT, type Ran, runNode } from './support/runNode.js';

const ALL_LEADS = readLines(join(PACKAGE_ROOT, 'examples/leads.jsonl'));
const STAGES = ['sales_intel', 'subject', 'email', 'polish'];

function readLines(path: string): Record<string, unknown>[] {
  return readFileSync(path, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
}

interface Demo {
  readonly ran: Ran;
  readonly out: string;
  readonly server: FakeRunpod;
}

async function runDemo(
  t: TestContext,
  faults: Record<string, Fault> = {},
  flags = ['--simulated'],
): Promise<Demo> {
  const server = await startFakeRunpod(t, fakeService(faults));
  const out = mkdtempSync(join(tmpdir(), 'adapter-demo-'));
  t.after(() => rmSync(out, { recursive: true, force: true }));
  const leads = join(out, 'leads.jsonl');
  const lines = ALL_LEADS.slice(0, 5).map((lead) => `${JSON.stringify(lead)}\n`);
  writeFileSync(leads, lines.join(''));
  const prices = join(PACKAGE_ROOT, '../runpod/prices.json');
  const args = ['dist-examples/demo.js', '--leads', leads, '--out', out, '--prices', prices, ...flags];
  const ran = await runNode(args, { env: { LOCAL_BATCH_URL: server.url, RUNPOD_API_KEY: API_KEY } });
  return { ran, out, server };
}

test('the demo runs the four stages, each fed by the texts of the one before', async (t) => {
  const { ran, server } = await runDemo(t);
  assert.equal(ran.code, 0, ran.stderr);
  const creates = server.calls.filter((call) => call.input['operation'] === 'create');
  assert.deepEqual(
    creates.map((call) => call.input['stage']),
    STAGES,
  );
  const quoted = [[], ['sales_intel'], ['sales_intel', 'subject'], ['subject', 'email']];
  for (const [n, create] of creates.entries()) {
    for (const stage of quoted[n] ?? []) assert.ok(create.text.includes(`<${stage} lead_L1001_${stage}>`));
  }
});

test('the demo writes the results of every stage, and the final subject and e-mail of every lead', async (t) => {
  const { out } = await runDemo(t);
  for (const stage of STAGES) {
    const ids = readLines(join(out, `${stage}.jsonl`)).map((result) => result['custom_id']);
    assert.deepEqual(
      ids,
      ALL_LEADS.slice(0, 5).map((lead) => `lead_${lead['leadId']}_${stage}`),
    );
  }
  const personalized = readLines(join(out, 'personalized.jsonl'));
  assert.equal(personalized.length, 5);
  assert.equal(personalized[0]?.['subject'], '<subject lead_L1001_subject>');
  assert.equal(personalized[0]?.['email'], '<polish lead_L1001_polish>');
});

test('the table says what each stage took and cost, by the prices of the file', async (t) => {
  const { ran } = await runDemo(t);
  const row = (stage: string) =>
    (ran.stdout.split('\n').find((line) => line.startsWith(stage)) ?? '')
      .split(/ {2,}/)
      .map((cell) => cell.trim());
  const [, model, requests, counts, , p50, p95, tokensIn, tokensOut, gpu, cost, managed] = row('sales_intel');
  assert.deepEqual([model, requests, counts], ['llama-70b', '5', '5/0']);
  assert.deepEqual([p50, p95, tokensIn, tokensOut], ['0.30', '0.50', '500', '100']);
  // 1.5 s of a worker with two GPUs at $0.00076; 500 tokens at $1.50 and 100 at $7.50 a million.
  assert.deepEqual([gpu, cost, managed], ['3.00', '0.0023', '0.0015']);
  // One 4090: 1.5 s at $0.00031.
  assert.deepEqual(row('email').slice(9, 11), ['1.50', '0.0005']);
  assert.equal(row('total')[1], '20', ran.stdout);
});

test('simulated figures are labelled so, real ones are not', async (t) => {
  const simulated = await runDemo(t);
  assert.match(simulated.ran.stdout, /4 stages \(simulated\)/);
  assert.match(simulated.ran.stdout, /^Simulated: .*not measured/m);
  const real = await runDemo(t, {}, []);
  assert.ok(!real.ran.stdout.includes('imulated'), real.ran.stdout);
});

test('without a terminal progress is a few plain lines', async (t) => {
  const { ran } = await runDemo(t);
  assert.ok(!ran.stderr.includes('\r'));
  assert.match(ran.stderr, /^sales_intel +0\/5 /m);
  assert.match(ran.stderr, /^polish +5\/5 /m);
});

test('on a terminal progress is one bar, redrawn in place', () => {
  let text = '';
  const screen = { isTTY: true, write: (more: string) => (text += more) };
  const progress = new Progress('email', 4, screen);
  progress.show(2);
  progress.close();
  const drawings = text.split('\r').slice(1);
  assert.equal(drawings.length, 2);
  assert.match(drawings[0] ?? '', /email +░{30} 0\/4 /);
  assert.match(drawings[1] ?? '', /email +█{15}░{15} 2\/4 .*\n$/);
});

test('percentiles are by nearest rank', () => {
  const values = [40, 10, 30, 20];
  assert.deepEqual([percentile(values, 50), percentile(values, 95), percentile([7], 50)], [20, 40, 7]);
  assert.equal(percentile([], 50), undefined);
});

for (const [fault, words] of [
  ['errored', 'errored: the worker died twice on it'],
  ['missing', 'no result'],
] as const) {
  test(`a result that is ${fault} fails the demo, which names it and still prints its table`, async (t) => {
    const { ran } = await runDemo(t, { lead_L1003_subject: fault });
    assert.equal(ran.code, 1);
    assert.ok(ran.stderr.includes(`lead_L1003_subject: ${words}`), ran.stderr);
    assert.match(ran.stdout, /^subject /m);
  });
}

test('without the environment the demo says which variable is missing', async () => {
  const prices = join(PACKAGE_ROOT, '../runpod/prices.json');
  const args = [
    'dist-examples/demo.js',
    '--leads',
    'examples/leads.jsonl',
    '--out',
    tmpdir(),
    '--prices',
    prices,
  ];
  const { code, stderr } = await runNode(args);
  assert.equal(code, 1);
  assert.match(stderr, /LOCAL_BATCH_URL is not set/);
});

test('there are 100 leads, each with every field and its own ids, name and company', () => {
  assert.equal(ALL_LEADS.length, 100);
  const fields = Object.keys(ALL_LEADS[0] ?? {});
  assert.equal(fields.length, 14);
  for (const lead of ALL_LEADS) {
    assert.deepEqual(Object.keys(lead), fields);
    assert.match(String(lead['website']), /^https:\/\/[a-z0-9-]+\.example\.com$/);
  }
  for (const field of ['leadId', 'accountId', 'company', 'website']) {
    assert.equal(new Set(ALL_LEADS.map((lead) => lead[field])).size, 100, field);
  }
  assert.equal(new Set(ALL_LEADS.map((lead) => `${lead['firstName']} ${lead['lastName']}`)).size, 100);
});
