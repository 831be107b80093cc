import assert from 'node:assert/strict';
import { test } from 'node:test';
import { API_KEY, completed, startFakeRunpod } from './support/fakeRunpod.js';
import { runNode } from './support/runNode.js';
import { BATCH_ID, statusOf } from './support/setup.js';

const IMPORT_BOTH = `
  import 'llm-batch-adapter';
  import { createRequire } from 'node:module';
  createRequire(process.cwd() + '/x.js')('llm-batch-adapter');
`;

const run = (code: string, env: Record<string, string> = {}) =>
  runNode(['--input-type=module', '-e', code], { env });

test('importing with neither variable set warns once, in both module formats together, and does not throw', async () => {
  const { code, stderr } = await run(IMPORT_BOTH);
  assert.equal(code, 0, stderr);
  assert.equal(stderr.match(/LOCAL_BATCH_URL/g)?.length, 1, stderr);
});

test('importing with the variables set says nothing', async () => {
  const env = { LOCAL_BATCH_URL: 'https://api.runpod.ai/v2/abc', RUNPOD_API_KEY: API_KEY };
  const { code, stdout, stderr } = await run(IMPORT_BOTH, env);
  assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: '', stderr: '' });
});

test('a call without the URL is a typed error that names the variable', async () => {
  const { stdout } = await run(
    `import { createBatch, isConfigurationError } from 'llm-batch-adapter';
     await createBatch('email', []).catch((error) => console.log(isConfigurationError(error), error.message));`,
    { RUNPOD_API_KEY: API_KEY },
  );
  assert.match(stdout, /^true LOCAL_BATCH_URL is not set/);
});

test('a call without the key is a typed error that names the variable', async () => {
  const { stdout } = await run(
    `import { waitForBatch, isConfigurationError } from 'llm-batch-adapter';
     await waitForBatch('x').catch((error) => console.log(isConfigurationError(error), error.message));`,
    { LOCAL_BATCH_URL: 'https://api.runpod.ai/v2/abc' },
  );
  assert.match(stdout, /^true RUNPOD_API_KEY is not set/);
});

test('the variables are read at each call, not at import', async (t) => {
  const server = await startFakeRunpod(t, () => completed(statusOf('ended', 2)));
  const { stdout, stderr } = await run(
    `import { getBatchStatus } from 'llm-batch-adapter';
     process.env.LOCAL_BATCH_URL = ${JSON.stringify(server.url)};
     process.env.RUNPOD_API_KEY = 'first';
     await getBatchStatus('${BATCH_ID}');
     process.env.RUNPOD_API_KEY = 'second';
     console.log((await getBatchStatus('${BATCH_ID}')).processing_status);`,
  );
  assert.equal(stdout, 'ended\n', stderr);
  assert.deepEqual(
    server.calls.map((call) => call.headers.authorization),
    ['Bearer first', 'Bearer second'],
  );
});
