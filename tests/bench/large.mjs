// One large batch through the built Node adapter, as an app would send it: requests made on the fly, results to a file.
// Argument: {"requests", "bytes", "out"} as JSON. Prints a line of JSON after each step; reads the results when a line
// has come in, so that whoever looks on can measure in between.
import assert from 'node:assert/strict';
import { createWriteStream } from 'node:fs';
import { once } from 'node:events';
import {
  createBatch,
  getBatchStatus,
  streamBatchResults,
  waitForBatch,
} from '../../node-adapter/dist/esm/index.js';

const { requests: count, bytes, out } = JSON.parse(process.argv[2]);
const POLL_MS = 1_000;
const MAX_WAIT_MS = 2 * 3_600_000;
const CHUNK_CHARS = 1 << 18;
// Every such request goes to the other model, so that results are merged from both.
const HINT_EVERY = 16;

const elapsedS = (sinceMs) => (performance.now() - sinceMs) / 1000;
const peakBytes = () => process.resourceUsage().maxRSS * 1024;
const report = (step, figures) => console.log(JSON.stringify({ step, ...figures, peak_bytes: peakBytes() }));

// Random words, which compress about as well as prompts do. Each prompt is a slice of them.
function randomText(chars) {
  const words = Array.from({ length: 2_000 }, () => Math.random().toString(36).slice(2, 2 + Math.random() * 10));
  let text = '';
  while (text.length < chars) text += `${words[Math.floor(Math.random() * words.length)]} `;
  return text;
}

function requestOf(n, text) {
  const params = {
    system: 'You write short business e-mails.',
    messages: [{ role: 'user', content: `Write to lead ${n}. ${text}` }],
  };
  const request = { custom_id: `lead_${n}_email`, params };
  return n % HINT_EVERY === 0 ? { ...request, metadata: { model_hint: 'llama-70b' } } : request;
}

async function* makeRequests() {
  const pool = randomText(1 << 20);
  const each = bytes / count;
  for (let n = 0; n < count; n += 1) {
    const chars = Math.max(0, Math.round(each - JSON.stringify(requestOf(n, '')).length - 1));
    const start = Math.floor(Math.random() * Math.max(1, pool.length - chars));
    yield requestOf(n, pool.slice(start, start + chars));
  }
}

async function create() {
  const startMs = performance.now();
  let lastPartMs = startMs;
  let sent;
  const { id } = await createBatch('email', makeRequests(), {
    onUpload: (progress) => {
      lastPartMs = performance.now();
      sent = progress;
    },
  });
  const createS = elapsedS(lastPartMs);
  const uploadS = (lastPartMs - startMs) / 1000;
  while ((await getBatchStatus(id)).processing_status === 'collected');
  const firstJobS = elapsedS(lastPartMs);
  report('created', { id, ...sent, upload_s: uploadS, create_s: createS, first_job_s: firstJobS });
  return { id, startMs };
}

async function wait({ id, startMs }) {
  const { counts } = await waitForBatch(id, MAX_WAIT_MS, { pollIntervalMs: POLL_MS });
  assert.deepEqual(counts, { total: count, succeeded: count, errored: 0, pending: 0 });
  report('ended', { wall_s: elapsedS(startMs) });
}

async function read(id) {
  const startMs = performance.now();
  const file = createWriteStream(out);
  let [n, text] = [0, ''];
  for await (const result of streamBatchResults(id)) {
    assert.equal(result.custom_id, `lead_${n}_email`);
    assert.equal(result.status, 'succeeded');
    assert.equal(result.model, n % HINT_EVERY === 0 ? 'llama-70b' : 'mistral');
    n += 1;
    text += `${JSON.stringify(result)}\n`;
    if (text.length > CHUNK_CHARS) {
      if (!file.write(text)) await once(file, 'drain');
      text = '';
    }
  }
  file.end(text);
  await once(file, 'close');
  assert.equal(n, count);
  report('read', { results_s: elapsedS(startMs), results_bytes: file.bytesWritten });
}

const batch = await create();
await wait(batch);
await once(process.stdin, 'data');
await read(batch.id);
process.stdin.destroy();
