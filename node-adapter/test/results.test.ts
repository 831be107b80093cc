import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isBatchNotEndedError, isInvalidRequestError, isServerError } from '../src/errors.js';
import type { BatchResult } from '../src/types.js';
import { completed, http, refused, type Script } from './support/fakeRunpod.js';
import { BATCH_ID, errorOf, setUp } from './support/setup.js';

function resultOf(customId: string): BatchResult {
  return {
    custom_id: customId,
    status: 'succeeded',
    message: { content: [{ type: 'text', text: `text of ${customId}` }] },
    usage: { input_tokens: 3, output_tokens: 5 },
    error: null,
  };
}

const IDS = ['lead_1_email', 'naïve 🦊\n2', '"3"\\', 'e\u0301', 'é'];

// Three pages: two results, two, one.
const PAGES: Record<string, unknown> = {
  first: { results: IDS.slice(0, 2).map(resultOf), next_page: 'p2' },
  p2: { results: IDS.slice(2, 4).map(resultOf), next_page: 'p3' },
  p3: { results: IDS.slice(4).map(resultOf), next_page: null },
};
const paged: Script = ({ input }) => completed(PAGES[String(input['page'] ?? 'first')]);

test('results loops over all pages and keeps their order and every custom_id byte for byte', async (t) => {
  const { client, server } = await setUp(t, paged);
  const { results } = await client.getBatchResults(BATCH_ID);
  assert.deepEqual(results, IDS.map(resultOf));
  assert.deepEqual(
    server.calls.map((call) => call.input),
    [
      { operation: 'results', id: BATCH_ID },
      { operation: 'results', id: BATCH_ID, page: 'p2' },
      { operation: 'results', id: BATCH_ID, page: 'p3' },
    ],
  );
});

test('the stream reads a page only when its first result is taken', async (t) => {
  const { client, server } = await setUp(t, paged);
  const stream = client.streamBatchResults(BATCH_ID);
  assert.equal(server.calls.length, 0);
  assert.equal((await stream.next()).value?.custom_id, IDS[0]);
  assert.equal((await stream.next()).value?.custom_id, IDS[1]);
  assert.equal(server.calls.length, 1);
  assert.equal((await stream.next()).value?.custom_id, IDS[2]);
  assert.equal(server.calls.length, 2);
});

test('the stream gives every result once, in order', async (t) => {
  const { client } = await setUp(t, paged);
  const seen: string[] = [];
  for await (const result of client.streamBatchResults(BATCH_ID)) seen.push(result.custom_id);
  assert.deepEqual(seen, IDS);
});

test('a stream that is left early reads no further page', async (t) => {
  const { client, server } = await setUp(t, paged);
  for await (const result of client.streamBatchResults(BATCH_ID)) {
    if (result.custom_id === IDS[1]) break;
  }
  assert.equal(server.calls.length, 1);
});

test('results before the end is a BatchNotEndedError with 400 and the words that callers match', async (t) => {
  const { client, server } = await setUp(t, [refused(400, 'batch_not_ended', 'Batch not yet complete')]);
  const error = await errorOf(client.getBatchResults(BATCH_ID));
  assert.ok(isBatchNotEndedError(error));
  assert.ok(isInvalidRequestError(error));
  assert.equal(error.status, 400);
  assert.match(error.message, /^Failed to get batch results: 400 .*Batch not yet complete/);
  assert.equal(server.calls.length, 1);
});

test('partial results are asked for only by name', async (t) => {
  const { client, server } = await setUp(t, [completed({ results: [], next_page: null })]);
  await client.getBatchResults(BATCH_ID, { partial: true });
  assert.equal(server.calls[0]?.input['partial'], true);
});

test('a page that names itself as the next one ends in an error, not in a loop', async (t) => {
  const { client } = await setUp(t, (_, n) =>
    n < 4 ? completed({ results: [resultOf('a')], next_page: 'p1' }) : http(400, 'asked for ever'),
  );
  const error = await errorOf(client.getBatchResults(BATCH_ID));
  assert.ok(isServerError(error));
  assert.match(error.message, /page p1 names itself/);
});
