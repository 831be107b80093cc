import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable, Writable } from 'node:stream';
import { type TestContext, test } from 'node:test';
import { LINE_MAX_BYTES, parseLines, readBytes } from '../src/cli/lines.js';
import { writeLines } from '../src/cli/output.js';
import { RequestFile } from '../src/cli/requestFile.js';
import { PART_MAX_BYTES } from '../src/parts.js';

const SIGNAL = new AbortController().signal;

async function* chunks(...texts: (string | Buffer)[]): AsyncGenerator<Buffer> {
  for (const text of texts) yield Buffer.from(text);
}

async function linesOf(...texts: (string | Buffer)[]) {
  const found: unknown[] = [];
  for await (const { number, value } of parseLines('f.jsonl', chunks(...texts))) found.push([number, value]);
  return found;
}

function folderOf(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'cli-lines-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

test('lines are cut wherever the chunks are, and empty ones are counted but passed over', async () => {
  const text = '\ufeff{"a":"é🦔"}\r\n\n  \n{"b":2}';
  const expected = [
    [1, { a: 'é🦔' }],
    [4, { b: 2 }],
  ];
  assert.deepEqual(await linesOf(text), expected);
  const bytes = [...Buffer.from(text)].map((byte) => Buffer.from([byte]));
  assert.deepEqual(await linesOf(...bytes), expected);
});

const BAD: [string, string | Buffer, RegExp][] = [
  ['cut JSON', '{"a":1}\n{"a":', /^f\.jsonl:2: the line is not JSON/],
  ['a list', '[1]\n', /^f\.jsonl:1: the line is not a JSON object$/],
  ['bytes that are no text', Buffer.from([0x7b, 0xff, 0x7d]), /^f\.jsonl:1: the line is not UTF-8 text$/],
];
for (const [what, text, message] of BAD) {
  test(`a bad line is named by its number: ${what}`, async () => {
    await assert.rejects(linesOf(text), ({ message: said }: Error) => message.test(said));
  });
}

test('an error never quotes the line', async () => {
  await assert.rejects(
    linesOf('{"prompt": secret words}'),
    ({ message }: Error) => !message.includes('secret'),
  );
});

test('a line without an end is refused before it fills the memory', async () => {
  const half = Buffer.alloc(LINE_MAX_BYTES / 2 + 1, 0x20);
  await assert.rejects(linesOf(half, half), /f\.jsonl:1: the line is longer than 20000000 bytes/);
});

test('a file that is not there is named', async () => {
  const read = async () => {
    for await (const _ of readBytes('/nowhere/f.jsonl', SIGNAL));
  };
  await assert.rejects(read(), /^Error: \/nowhere\/f\.jsonl can't be read: /);
});

const REQUEST = { custom_id: 'a', params: { messages: [{ role: 'user', content: 'Hi' }] } };

test('a custom_id that stands twice is refused with both lines', async (t) => {
  const path = join(folderOf(t), 'f.jsonl');
  writeFileSync(path, `${JSON.stringify(REQUEST)}\n\n${JSON.stringify(REQUEST)}\n`);
  const file = await RequestFile.open(path, Readable.from([]), SIGNAL);
  await assert.rejects(file.check(undefined), (error: Error) =>
    error.message.endsWith('f.jsonl:3: custom_id: the same as in line 1'),
  );
});

test('a request that no part can hold is refused before anything is sent', async (t) => {
  const path = join(folderOf(t), 'f.jsonl');
  writeFileSync(
    path,
    `${JSON.stringify(REQUEST)}\n${JSON.stringify({ ...REQUEST, note: 'x'.repeat(PART_MAX_BYTES) })}`,
  );
  const file = await RequestFile.open(path, Readable.from([]), SIGNAL);
  await assert.rejects(
    file.check(undefined),
    /f\.jsonl:2: the request has 40\d+ bytes; one request may have 3999984/,
  );
});

test('a file that changes between the check and the upload is not submitted', async (t) => {
  const path = join(folderOf(t), 'f.jsonl');
  writeFileSync(path, JSON.stringify(REQUEST));
  const file = await RequestFile.open(path, Readable.from([]), SIGNAL);
  await file.check(undefined);
  writeFileSync(path, JSON.stringify({ ...REQUEST, custom_id: 'b' }));
  const upload = async () => {
    for await (const _ of file.requests());
  };
  await assert.rejects(upload(), /changed while it was read: nothing was submitted/);
});

test('stdin can be read twice, and leaves nothing behind', async () => {
  const before = readdirSync(tmpdir()).filter((name) => name.startsWith('llm-batch-'));
  const file = await RequestFile.open('-', Readable.from([Buffer.from(JSON.stringify(REQUEST))]), SIGNAL);
  assert.equal((await file.check(undefined)).requests, 1);
  const sent: unknown[] = [];
  for await (const request of file.requests()) sent.push(request);
  assert.deepEqual(sent, [REQUEST]);
  await file.close();
  const after = readdirSync(tmpdir()).filter((name) => name.startsWith('llm-batch-'));
  assert.deepEqual(after, before);
});

test('an interrupted stdin is given up at once, and leaves nothing behind', async () => {
  const before = readdirSync(tmpdir()).filter((name) => name.startsWith('llm-batch-'));
  const controller = new AbortController();
  const endless = new Readable({ read: () => controller.abort(new Error('interrupted')) });
  await assert.rejects(RequestFile.open('-', endless, controller.signal), /interrupted/);
  assert.deepEqual(
    readdirSync(tmpdir()).filter((name) => name.startsWith('llm-batch-')),
    before,
  );
});

test('the n-th request is found by its line, empty lines aside', async (t) => {
  const path = join(folderOf(t), 'f.jsonl');
  writeFileSync(path, '{}\n\n{}\n');
  const file = await RequestFile.open(path, Readable.from([]), SIGNAL);
  assert.equal(await file.lineOf(1), 3);
  assert.equal(await file.lineOf(2), undefined);
});

const NOWHERE = new Writable({ write: (_chunk, _encoding, done) => done() });

test('an output appears under its name only when it is whole', async (t) => {
  const folder = folderOf(t);
  const path = join(folder, 'out.jsonl');
  let during: string[] = [];
  await writeLines(path, NOWHERE, async (writer) => {
    for (let n = 0; n < 50_000; n += 1) await writer.line(`line ${n}`);
    during = readdirSync(folder);
  });
  assert.ok(!during.includes('out.jsonl') && during.length === 1, String(during));
  assert.deepEqual(readdirSync(folder), ['out.jsonl']);
  const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
  assert.deepEqual([lines.length, lines.at(-1)], [50_000, 'line 49999']);
});

test('an output that fails leaves the former file as it was, and nothing else', async (t) => {
  const folder = folderOf(t);
  const path = join(folder, 'out.jsonl');
  writeFileSync(path, 'former');
  const fill = writeLines(path, NOWHERE, async (writer) => {
    await writer.line('x'.repeat(1_000_000));
    throw new Error('cut');
  });
  await assert.rejects(fill, /cut/);
  assert.deepEqual(readdirSync(folder), ['out.jsonl']);
  assert.equal(readFileSync(path, 'utf8'), 'former');
});
