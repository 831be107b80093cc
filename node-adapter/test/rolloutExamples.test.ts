import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { route } from '../src/rollout.js';
import { startFakeAnthropic } from './support/fakeAnthropic.js';
import { API_KEY, startFakeRunpod } from './support/fakeRunpod.js';
import { fakeService } from './support/fakeService.js';
import { PACKAGE_ROOT, runNode } from './support/runNode.js';

const STAGES = ['sales_intel', 'subject', 'email', 'polish'];
const LEADS = readFileSync(join(PACKAGE_ROOT, 'examples/leads.jsonl'), 'utf8').split('\n').slice(0, 3);
const IDS = LEADS.map((line): string => JSON.parse(line).leadId);

type Step = 'during' | 'after';

/** The lines that are in one file only, as a diff shows them. Both files have the others in the same order. */
function changedLines(example: string, step: Step): { removed: string[]; added: string[] } {
  const linesOf = (when: string) =>
    readFileSync(join(PACKAGE_ROOT, `examples/${example}/${when}/campaign.ts`), 'utf8').split('\n');
  const [before, then] = [linesOf('before'), linesOf(step)];
  const removed = before.filter((line) => !then.includes(line));
  const added = then.filter((line) => !before.includes(line));
  assert.deepEqual(
    before.filter((line) => !removed.includes(line)),
    then.filter((line) => !added.includes(line)),
  );
  return { removed, added };
}

const importFrom = (path: string) =>
  `import { type BatchRequest, createBatch, getBatchResults, waitForBatch } from '${path}';`;

for (const [step, path] of [
  ['during', '../../adapter/routed.js'],
  ['after', 'llm-batch-adapter'],
] as const) {
  test(`the service of the own contract moves by the import alone: ${step}`, () => {
    assert.deepEqual(changedLines('own-contract', step), {
      removed: [importFrom('../../adapter/llmAdapter.js')],
      added: [importFrom(path)],
    });
  });
}

const CONSTRUCTION: Readonly<Record<Step, string[]>> = {
  during: [
    "import { AnthropicRouter } from 'llm-batch-adapter/rollout';",
    "import { runpodFetch } from 'llm-batch-adapter/runpodFetch';",
    "const { LOCAL_BATCH_URL: batchUrl = '', RUNPOD_API_KEY: apiKey = '' } = process.env;",
    'const anthropic = new AnthropicRouter({',
    '  remote: new Anthropic(),',
    "  local: () => new Anthropic({ apiKey: 'unused', fetch: runpodFetch({ batchUrl, apiKey }) }),",
    "  key: ({ params }) => params.metadata?.user_id ?? '',",
    '});',
  ],
  after: [
    "import { runpodFetch } from 'llm-batch-adapter/runpodFetch';",
    "const { LOCAL_BATCH_URL: batchUrl = '', RUNPOD_API_KEY: apiKey = '' } = process.env;",
    "const anthropic = new Anthropic({ apiKey: 'unused', fetch: runpodFetch({ batchUrl, apiKey }) });",
  ],
};

for (const step of ['during', 'after'] as const) {
  test(`the service on Anthropic's SDK moves by the client's construction alone: ${step}`, () => {
    const removed = ['const anthropic = new Anthropic();'];
    // The end of the construction is a line that the rest of the file has too.
    const added = CONSTRUCTION[step].filter((line) => line !== '});');
    const changed = changedLines('anthropic-sdk', step);
    assert.deepEqual(
      { removed: changed.removed, added: changed.added.filter((line) => line !== '});') },
      { removed, added },
    );
  });
}

const PAGE = readFileSync(join(PACKAGE_ROOT, '../docs/migration.md'), 'utf8');

for (const example of ['own-contract', 'anthropic-sdk']) {
  for (const step of ['during', 'after'] as const) {
    test(`the migration page shows what changes in ${example}: ${step}`, () => {
      const { removed, added } = changedLines(example, step);
      const diff = [...removed.map((line) => `-${line}`), ...added.map((line) => `+${line}`)];
      assert.ok(PAGE.includes(`\`\`\`diff\n${diff.join('\n')}\n\`\`\`\n`), diff.join('\n'));
    });
  }
}

test('the migration page shows the module of both services as it is', () => {
  const module = readFileSync(join(PACKAGE_ROOT, 'examples/adapter/routed.ts'), 'utf8');
  assert.ok(PAGE.includes(`\`\`\`ts\n${module}\`\`\`\n`));
});

/** What the service wrote for each lead. */
async function runCampaign(
  t: TestContext,
  service: string,
  env: Record<string, string>,
): Promise<{ rows: Record<string, unknown>[]; stdout: string; stderr: string }> {
  const folder = mkdtempSync(join(tmpdir(), 'adapter-migration-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const [leads, out] = [join(folder, 'leads.jsonl'), join(folder, 'results.jsonl')];
  writeFileSync(leads, LEADS.join('\n'));
  const { code, stdout, stderr } = await runNode([`dist-examples/${service}/campaign.js`, leads, out], {
    env,
  });
  assert.equal(code, 0, stderr);
  // The fakes quote a request's custom_id, which has its place in front in a split batch.
  const rows = readFileSync(out, 'utf8')
    .replace(/\b\w+-(?=lead_)/g, '')
    .trimEnd()
    .split('\n');
  return { rows: rows.map((line) => JSON.parse(line)), stdout, stderr };
}

function rowsOf(textOf: (customId: string, stage: string) => string): Record<string, unknown>[] {
  return IDS.map((leadId) => ({
    leadId,
    ...Object.fromEntries(STAGES.map((stage) => [stage, textOf(`lead_${leadId}_${stage}`, stage)])),
  }));
}

const STDOUT = STAGES.map((stage) => `${stage}: 3 of 3 leads\n`).join('');

/** The service that the app had before: its batches end at once. */
async function startFormerService(t: TestContext): Promise<string> {
  const batches: { stage: string; requests: { custom_id: string }[] }[] = [];
  const now = new Date().toISOString();
  const statusOf = (id: string) => {
    const total = batches[Number(id)]?.requests.length ?? 0;
    const counts = { total, succeeded: total, errored: 0, pending: 0 };
    return { id, processing_status: 'ended', counts, created_at: now, updated_at: now };
  };
  const resultsOf = (id: string) => {
    const { stage, requests } = batches[Number(id)] ?? { stage: '', requests: [] };
    return requests.map(({ custom_id }) => ({
      custom_id,
      status: 'succeeded',
      message: { content: [{ type: 'text', text: `<former ${stage} ${custom_id}>` }] },
      usage: { input_tokens: 100, output_tokens: 20 },
      error: null,
    }));
  };
  const server = createServer((request, response) => {
    let text = '';
    request.on('data', (chunk: Buffer) => {
      text += chunk;
    });
    request.on('end', () => {
      const [, id, results] = /^\/batches(?:\/(\d+))?(\/results)?$/.exec(request.url ?? '') ?? [];
      const create = () => ({ id: String(batches.push(JSON.parse(text)) - 1) });
      const read = (known: string) => (results ? { results: resultsOf(known) } : statusOf(known));
      response.end(JSON.stringify(id === undefined ? create() : read(id)));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

// Each waits for its batches by the clock.
describe('the services run', { concurrency: true }, () => {
  test('own contract, before: against the former service', async (t) => {
    const env = { FORMER_BATCH_URL: await startFormerService(t) };
    const { rows, stdout } = await runCampaign(t, 'own-contract/before', env);
    assert.deepEqual(
      rows,
      rowsOf((id, stage) => `<former ${stage} ${id}>`),
    );
    assert.equal(stdout, STDOUT);
  });

  test('own contract, after: against this one', async (t) => {
    const server = await startFakeRunpod(t, fakeService());
    const env = { LOCAL_BATCH_URL: server.url, RUNPOD_API_KEY: API_KEY };
    const { rows, stdout } = await runCampaign(t, 'own-contract/after', env);
    assert.deepEqual(
      rows,
      rowsOf((id, stage) => `<${stage} ${id}>`),
    );
    assert.equal(stdout, STDOUT);
  });

  test('own contract, after: a lead that fails is left out of the later stages', async (t) => {
    const failed = `lead_${IDS[1]}_subject`;
    const server = await startFakeRunpod(t, fakeService({ [failed]: 'errored' }));
    const env = { LOCAL_BATCH_URL: server.url, RUNPOD_API_KEY: API_KEY };
    const { rows, stdout } = await runCampaign(t, 'own-contract/after', env);
    assert.deepEqual(Object.keys(rows[1] ?? {}), ['leadId', 'sales_intel', 'failure']);
    assert.deepEqual(rows[1]?.['failure'], { stage: 'subject', reason: 'the worker died twice on it' });
    assert.match(stdout, /^subject: 2 of 3 leads\nemail: 2 of 2 leads$/m);
  });

  test('own contract, during: against both, each lead where the percentage puts it', async (t) => {
    const server = await startFakeRunpod(t, fakeService());
    const env = {
      FORMER_BATCH_URL: await startFormerService(t),
      LOCAL_BATCH_URL: server.url,
      RUNPOD_API_KEY: API_KEY,
      USE_LOCAL_LLM: '1',
      LOCAL_LLM_PERCENT: '70',
    };
    const { rows, stdout, stderr } = await runCampaign(t, 'own-contract/during', env);
    const isLocal = IDS.map((key) => route({ localPercent: 70, key }) === 'local');
    assert.ok(isLocal.includes(true) && isLocal.includes(false));
    assert.deepEqual(
      rows,
      rowsOf((id, stage) => {
        const here = isLocal[IDS.indexOf(id.split('_')[1] ?? '')];
        return here ? `<${stage} ${id}>` : `<former ${stage} ${id}>`;
      }),
    );
    assert.equal(stdout, STDOUT);
    assert.match(stderr, /^batches +4 +4$/m);
  });

  test('own contract, during: with the flag off, against the former service alone', async (t) => {
    const env = { FORMER_BATCH_URL: await startFormerService(t), LOCAL_LLM_PERCENT: '100' };
    const { rows } = await runCampaign(t, 'own-contract/during', env);
    assert.deepEqual(
      rows,
      rowsOf((id, stage) => `<former ${stage} ${id}>`),
    );
  });

  test("Anthropic's SDK, during: with the flag off, against Anthropic alone", async (t) => {
    const server = await startFakeAnthropic(t);
    const env = { ANTHROPIC_BASE_URL: server.url, ANTHROPIC_API_KEY: 'sk-ant-test' };
    const { rows } = await runCampaign(t, 'anthropic-sdk/during', env);
    assert.deepEqual(
      rows,
      rowsOf((id) => `<managed ${id}>`),
    );
  });

  test("Anthropic's SDK, before: against Anthropic", async (t) => {
    const server = await startFakeAnthropic(t);
    const env = { ANTHROPIC_BASE_URL: server.url, ANTHROPIC_API_KEY: 'sk-ant-test' };
    const { rows, stdout } = await runCampaign(t, 'anthropic-sdk/before', env);
    assert.deepEqual(
      rows,
      rowsOf((id) => `<managed ${id}>`),
    );
    assert.equal(stdout, STDOUT);
  });
});
