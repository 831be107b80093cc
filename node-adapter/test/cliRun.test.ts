import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable, Writable } from 'node:stream';
import { type TestContext, test } from 'node:test';
import { Stopped } from '../src/cli/exit.js';
import { COMMANDS, run } from '../src/cli/run.js';
import { keyOf } from '../src/cli/submit.js';
import { FakeClock } from './support/fakeClock.js';
import { API_KEY, completed, http, type Received, refused, startFakeRunpod } from './support/fakeRunpod.js';
import { fakeService } from './support/fakeService.js';
import { PACKAGE_ROOT } from './support/runNode.js';
import { BATCH_ID, requestOf, statusOf } from './support/setup.js';

class Sink extends Writable {
  text = '';

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.text += chunk.toString();
    done();
  }
}

interface Session {
  readonly calls: Received[];
  readonly folder: string;
  readonly file: string;
  cli(...argv: string[]): Promise<{ code: number; out: string; err: string }>;
}

interface Setting {
  readonly script?: Parameters<typeof startFakeRunpod>[1];
  readonly env?: Record<string, string>;
  readonly stdin?: string;
  readonly signal?: AbortSignal;
  readonly clock?: FakeClock;
}

const REQUESTS = ['a', 'b', 'c', 'd'].map(requestOf);

async function session(t: TestContext, setting: Setting = {}): Promise<Session> {
  const server = await startFakeRunpod(t, setting.script ?? fakeService());
  const folder = mkdtempSync(join(tmpdir(), 'cli-run-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, 'requests.jsonl');
  writeFileSync(file, REQUESTS.map((request) => `${JSON.stringify(request)}\n`).join(''));
  const env = setting.env ?? { LOCAL_BATCH_URL: server.url, RUNPOD_API_KEY: API_KEY };
  const cli = async (...argv: string[]) => {
    const [stdout, stderr] = [new Sink(), new Sink()];
    const code = await run(argv, {
      env,
      stdin: Readable.from(setting.stdin === undefined ? [] : [Buffer.from(setting.stdin)]),
      stdout,
      stderr,
      signal: setting.signal ?? new AbortController().signal,
      version: '1.2.3',
      clientOptions: { clock: setting.clock ?? new FakeClock(), maxRetries: 0 },
    });
    return { code, out: stdout.text, err: stderr.text };
  };
  return { calls: server.calls, folder, file, cli };
}

function operations(calls: readonly Received[]): unknown[] {
  return calls.map(({ input }) => input['operation']);
}

test('submit prints the id alone on stdout, and sends the file as it is', async (t) => {
  const { calls, file, cli } = await session(t);
  const { code, out, err } = await cli(
    'submit',
    file,
    '--stage',
    'email',
    '--priority',
    'high',
    '--expires-in',
    '2h',
  );
  assert.equal(code, 0, err);
  assert.equal(out, 'batch_000000000000000000000000\n');
  const [create] = calls;
  assert.deepEqual(create?.input['requests'], REQUESTS);
  assert.deepEqual(
    [create?.input['stage'], create?.input['priority'], create?.input['expires_in_s']],
    ['email', 'high', 7200],
  );
});

test('the same file and options have the same key, others another', async (t) => {
  const { calls, file, cli } = await session(t);
  const runs = [
    ['--stage', 'email'],
    ['--stage', 'email'],
    ['--stage', 'subject'],
    ['--stage', 'email', '--key', 'mine'],
  ];
  for (const options of runs) await cli('submit', file, ...options);
  const keys = calls.map(({ input }) => input['idempotency_key']);
  assert.equal(keys[0], keys[1]);
  assert.equal(new Set(keys).size, 3);
  assert.equal(keys[3], 'mine');
  assert.match(String(keys[0]), /^file-[0-9a-f]{64}$/);
});

test('a key names every option of the batch', () => {
  const bare = { stage: undefined, priority: undefined, expiresInS: undefined, callbackUrl: undefined };
  const file = { format: 'ours', digest: 'd' } as const;
  const keys = [
    keyOf(bare, file),
    keyOf({ ...bare, stage: 's' }, file),
    keyOf({ ...bare, priority: 'low' }, file),
    keyOf({ ...bare, expiresInS: 60 }, file),
    keyOf({ ...bare, callbackUrl: 'https://a.example' }, file),
    keyOf(bare, { ...file, digest: 'e' }),
    keyOf(bare, { ...file, format: 'anthropic' }),
  ];
  assert.equal(new Set(keys).size, keys.length);
});

test('submit --watch -o waits, shows how far it is, and writes the results', async (t) => {
  const { folder, file, cli } = await session(t);
  const path = join(folder, 'out.jsonl');
  const { code, out, err } = await cli('submit', file, '--stage', 'email', '--watch', '-o', path);
  assert.equal(code, 0, err);
  assert.equal(out, 'batch_000000000000000000000000\n');
  assert.match(err, /processing: 2 of 4 done\n.*ended: 4 of 4 done\n/s);
  const ids = readFileSync(path, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line).custom_id);
  assert.deepEqual(ids, ['a', 'b', 'c', 'd']);
});

test('with --json, submit --watch -o answers with one object', async (t) => {
  const { folder, file, cli } = await session(t, { script: fakeService({ b: 'errored' }) });
  const path = join(folder, 'out.jsonl');
  const { out } = await cli('submit', file, '--stage', 'email', '-o', path, '--json', '--quiet');
  const answer = JSON.parse(out);
  assert.deepEqual([answer.requests, answer.results, answer.failed, answer.output], [4, 4, 1, path]);
  assert.equal(answer.status.processing_status, 'ended');
});

test('submit -o - keeps stdout for the results', async (t) => {
  const { file, cli } = await session(t);
  const { out, err } = await cli('submit', file, '--stage', 'email', '-o', '-');
  assert.deepEqual(
    out
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line).custom_id),
    ['a', 'b', 'c', 'd'],
  );
  assert.match(err, /^batch_0{24}$/m);
});

test('stdin can be submitted, in the format of others', async (t) => {
  const params = { model: 'claude-haiku-4-5', max_tokens: 5, messages: [{ role: 'user', content: 'Hi' }] };
  const { calls, cli } = await session(t, { stdin: JSON.stringify({ custom_id: 'x', params }) });
  const { code, err } = await cli('submit', '-');
  assert.equal(code, 0, err);
  assert.match(err, /stdin: 1 requests in the format "anthropic"/);
  assert.deepEqual(calls[0]?.input['requests'], [{ custom_id: 'x', params: { ...params, temperature: 1 } }]);
  assert.ok(!('stage' in (calls[0]?.input ?? {})));
});

test('nothing is sent where a line is wrong', async (t) => {
  const { calls, file, cli } = await session(t);
  writeFileSync(file, `${JSON.stringify(REQUESTS[0])}\n{"custom_id": 7}\n`);
  const { code, err } = await cli('submit', file, '--stage', 'email');
  assert.equal(code, 2);
  assert.match(err, /requests\.jsonl:2: custom_id: is missing or is not text/);
  assert.deepEqual(calls, []);
});

test('a request that the service refuses is named by its line', async (t) => {
  const message = 'requests[2].params.max_tokens: at most 8192 for llama-70b';
  const script = [refused(400, 'invalid_request_error', message, 'requests[2].params.max_tokens')];
  const { file, cli } = await session(t, { script });
  const { code, err } = await cli('submit', file, '--stage', 'polish');
  assert.equal(code, 2);
  assert.match(err, /requests\.jsonl:3: .*at most 8192 for llama-70b\n$/);
});

test('a time limit that is none is refused before a batch is made', async (t) => {
  const { calls, file, cli } = await session(t);
  for (const argv of [
    ['submit', file, '--stage', 'email'],
    ['retry-failed', BATCH_ID],
  ]) {
    const { code, err } = await cli(...argv, '--watch', '--timeout', '5x');
    assert.equal(code, 2);
    assert.match(err, /--timeout must be a duration/);
  }
  assert.deepEqual(operations(calls), []);
});

test('metrics are a row a figure', async (t) => {
  const metrics = [
    { name: 'queue_batches', labels: { model: 'mistral' }, value: 3 },
    { name: 'batches_open', labels: {}, value: 7 },
  ];
  const { cli } = await session(t, { script: [completed({ metrics, prometheus: '# HELP many lines' })] });
  const { out } = await cli('metrics');
  assert.equal(out, '  queue_batches{model="mistral"}  3\n  batches_open                    7\n');
});

test('results go into a pipe or a device as it is, and never take its place', async (t) => {
  const results = [{ custom_id: 'a', status: 'succeeded', message: null, usage: null, error: null }];
  const { folder, cli } = await session(t, { script: [completed({ results, next_page: null })] });
  const pipe = join(folder, 'pipe');
  execFileSync('mkfifo', [pipe]);
  // Open for both, so that no write waits for a reader.
  const reader = openSync(pipe, 'r+');
  t.after(() => closeSync(reader));
  assert.equal((await cli('results', BATCH_ID, '-o', pipe)).code, 0);
  assert.ok(statSync(pipe).isFIFO());
  const read = Buffer.alloc(1000);
  assert.equal(read.toString('utf8', 0, readSync(reader, read)), `${JSON.stringify(results[0])}\n`);
});

test('results that are cut leave nothing behind, and the exit code says why', async (t) => {
  let looks = 0;
  const script = () => {
    looks += 1;
    const results = [{ custom_id: 'a', status: 'succeeded', message: null, usage: null, error: null }];
    return looks === 1 ? completed({ results, next_page: '1' }) : http(500, 'down');
  };
  const { folder, cli } = await session(t, { script });
  const { code, err } = await cli('results', BATCH_ID, '-o', join(folder, 'out.jsonl'));
  assert.equal(code, 3);
  assert.match(err, /500 down/);
  assert.deepEqual(readdirSync(folder), ['requests.jsonl']);
});

// What the service answers, and the exit code that follows.
const CODES: [string, string[], Setting['script'], number][] = [
  ['an ended batch', ['wait', BATCH_ID], [completed(statusOf('ended', 2))], 0],
  [
    'a batch with a failure',
    ['wait', BATCH_ID],
    [completed({ ...statusOf('ended', 1), counts: { total: 2, succeeded: 1, errored: 1, pending: 0 } })],
    1,
  ],
  [
    'a wrong request',
    ['retry-failed', BATCH_ID],
    [refused(400, 'invalid_request_error', 'nothing failed')],
    2,
  ],
  [
    'results before the end',
    ['results', BATCH_ID],
    [refused(400, 'batch_not_ended', 'Batch not yet complete')],
    2,
  ],
  ['a conflict', ['cancel', BATCH_ID], [refused(409, 'conflict_error', 'it has ended')], 2],
  ['no such batch', ['status', BATCH_ID], [refused(404, 'not_found_error', 'no such batch')], 4],
  ['no such endpoint', ['status', BATCH_ID], [http(404, 'not found')], 3],
  ['a wrong key', ['status', BATCH_ID], [http(401)], 3],
  ['a service that is down', ['status', BATCH_ID], [http(500)], 3],
  ['a service that is gone', ['status', BATCH_ID], ['drop'], 3],
  [
    'a healthy service',
    ['health'],
    [completed({ ready: true, endpoints: { mistral: { id: 'm', ok: true } } })],
    0,
  ],
  ['a service that is not ready', ['health'], [completed({ ready: false })], 3],
  ['figures', ['metrics'], [completed({ queue: { depth: 3 } })], 0],
  ['a deletion', ['delete', BATCH_ID], [completed({ id: BATCH_ID, deleted: true })], 0],
  ['a list', ['list'], [completed({ batches: [statusOf('ended', 2)], next_page: null })], 0],
];
for (const [what, argv, script, expected] of CODES) {
  for (const json of [false, true]) {
    test(`the exit code of ${what} is ${expected}${json ? ', and stdout is JSON' : ''}`, async (t) => {
      const { cli } = await session(t, script === undefined ? {} : { script });
      const { code, out, err } = await cli(...argv, ...(json ? ['--json'] : []));
      assert.equal(code, expected, err);
      assert.ok(!`${out}${err}`.includes(API_KEY));
      if (!json) return;
      const answer = JSON.parse(out);
      if (answer.error !== undefined) assert.equal(answer.error.exit_code, expected);
    });
  }
}

test('wait ends with 5 at its timeout, and says how to go on', async (t) => {
  const { cli } = await session(t, { script: () => completed(statusOf('processing')) });
  const { code, err } = await cli('wait', BATCH_ID, '--timeout', '30s');
  assert.equal(code, 5);
  assert.match(
    err,
    /did not complete within 30000ms\nThe batch goes on\. Wait for it again with: llm-batch wait batch_/,
  );
});

test('somebody who interrupts a wait is told how to go on', async (t) => {
  const controller = new AbortController();
  const clock = new FakeClock();
  clock.onSleep = () => controller.abort(new Stopped(130, 'interrupted'));
  const script = () => completed(statusOf('processing'));
  const { cli } = await session(t, { script, clock, signal: controller.signal });
  const { code, err } = await cli('wait', BATCH_ID);
  assert.equal(code, 130);
  assert.match(err, /llm-batch: interrupted\nThe batch goes on\. Wait for it again with: llm-batch wait /);
});

const WRONG: [string[], RegExp][] = [
  [[], /^llm-batch: a command is needed/],
  [['sumbit'], /unknown command sumbit/],
  [['status'], /status needs ID/],
  [['status', 'a', 'b'], /unexpected "b"/],
  [['status', BATCH_ID, '--wat'], /'--wat'/],
  [['submit', 'f', '--priority', 'urgent'], /--priority must be one of: low, normal, high/],
  [['submit', 'f', '--expires-in', '5s'], /--expires-in must be a duration .* from 10 to 604800 seconds/],
  [['list', '--limit', '0'], /--limit must be a whole number from 1 to 1000/],
  [['convert', 'f'], /convert needs --to/],
  [['estimate', '/nowhere/f.jsonl'], /\/nowhere\/f\.jsonl can't be read/],
];
for (const [argv, message] of WRONG) {
  test(`a wrong command line ends with 2 and says why: ${argv.join(' ') || 'no words'}`, async (t) => {
    const { calls, cli } = await session(t);
    const { code, out, err } = await cli(...argv);
    assert.equal(code, 2);
    assert.match(err, message);
    assert.equal(out, '');
    assert.deepEqual(calls, []);
  });
}

test('a missing variable is named', async (t) => {
  const { cli } = await session(t, { env: { LOCAL_BATCH_URL: 'http://127.0.0.1:1' } });
  const { code, err } = await cli('status', BATCH_ID);
  assert.equal(code, 2);
  assert.match(err, /Set RUNPOD_API_KEY/);
});

test('--version and --help of every command answer on stdout', async (t) => {
  const { cli } = await session(t);
  assert.equal((await cli('--version')).out, '1.2.3\n');
  for (const { name } of COMMANDS) {
    for (const argv of [
      [name, '--help'],
      ['help', name],
    ]) {
      const { code, out } = await cli(...argv);
      assert.equal(code, 0);
      assert.match(out, new RegExp(`^usage: llm-batch ${name} `));
    }
  }
});

test('the page names every command, every option and every exit code', () => {
  const page = readFileSync(join(PACKAGE_ROOT, '../docs/cli.md'), 'utf8');
  for (const { name, options } of COMMANDS) {
    assert.ok(page.includes(`\`${name}`), name);
    for (const option of Object.keys(options)) assert.ok(page.includes(`--${option}`), `${name} --${option}`);
  }
  for (const code of [0, 1, 2, 3, 4, 5, 70, 130, 141, 143]) assert.match(page, new RegExp(`\\| ${code} \\|`));
});

test('convert writes another format, and refuses what it would lose', async (t) => {
  const { file, cli } = await session(t);
  const refusal = await cli('convert', file, '--to', 'openai');
  assert.equal(refusal.code, 2);
  assert.match(refusal.err, /requests\.jsonl:1: params\.model: OpenAI's format needs one/);
  const { code, out } = await cli('convert', file, '--to', 'openai', '--model', 'gpt-x');
  assert.equal(code, 0);
  assert.equal(JSON.parse(out.split('\n')[0] ?? '').body.model, 'gpt-x');
});

test('estimate says tokens, time and cost, and calls nothing', async (t) => {
  const { calls, file, cli } = await session(t, { env: {} });
  const { code, out, err } = await cli('estimate', file, '--stage', 'email');
  assert.equal(code, 0, err);
  for (const row of ['requests +4', 'tokens in +about', 'time ', 'GPU cost +\\$', 'managed API +\\$']) {
    assert.match(out, new RegExp(row));
  }
  const answer = JSON.parse((await cli('estimate', file, '--stage', 'email', '--json')).out);
  assert.deepEqual(
    [answer.requests, answer.models[0].model, answer.models[0].maxOutputTokens],
    [4, 'mistral', 8192],
  );
  assert.deepEqual(operations(calls), []);
});
