import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  isBatchNotEndedError,
  isInvalidRequestError,
  isNotFoundError,
  isServerError,
} from '../src/errors.js';
import type { BatchResult } from '../src/types.js';
import { completed, http, type Reply, refused, type Script } from './support/fakeRunpod.js';
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

test('the stream reads nothing before it is asked, and then one page ahead', async (t) => {
  const answered: ((reply: Reply) => void)[] = [];
  const asked: (() => void)[] = [];
  const coming = [0, 1, 2].map((n) => new Promise<void>((resolve) => (asked[n] = resolve)));
  const { client, server } = await setUp(t, (_, n) => {
    asked[n]?.();
    return new Promise<Reply>((resolve) => answered.push(resolve));
  });
  const stream = client.streamBatchResults(BATCH_ID);
  assert.equal(server.calls.length, 0);
  const first = stream.next();
  await coming[0];
  answered[0]?.(completed(PAGES['first']));
  assert.equal((await first).value?.custom_id, IDS[0]);
  await coming[1];
  assert.equal(
    (await stream.next()).value?.custom_id,
    IDS[1],
    'what is there does not wait for the next page',
  );
  const third = stream.next();
  answered[1]?.(completed(PAGES['p2']));
  assert.equal((await third).value?.custom_id, IDS[2]);
  await coming[2];
  assert.equal(server.calls.length, 3);
});

test('a page ahead that fails is an error only when its turn comes', async (t) => {
  const { client } = await setUp(t, ({ input }) =>
    input['page'] === undefined
      ? completed(PAGES['first'])
      : refused(404, 'not_found_error', 'it has expired'),
  );
  const stream = client.streamBatchResults(BATCH_ID);
  const ids = [(await stream.next()).value?.custom_id, (await stream.next()).value?.custom_id];
  assert.deepEqual(ids, IDS.slice(0, 2));
  assert.ok(isNotFoundError(await errorOf(stream.next())));
});

test('the stream gives every result once, in order', async (t) => {
  const { client } = await setUp(t, paged);
  const seen: string[] = [];
  for await (const result of client.streamBatchResults(BATCH_ID)) seen.push(result.custom_id);
  assert.deepEqual(seen, IDS);
});

test('a stream that is left early ends the call for the page ahead', async (t) => {
  let left = () => {};
  const cut = new Promise<void>((resolve) => {
    left = resolve;
  });
  const fetchPages: typeof fetch = (url, init) => {
    const body = JSON.parse(String(init?.body));
    if (body.input.page !== undefined) init?.signal?.addEventListener('abort', () => left());
    return fetch(url, init);
  };
  const { client, server } = await setUp(
    t,
    ({ input }) => (input['page'] === undefined ? completed(PAGES['first']) : 'hang'),
    { fetch: fetchPages },
  );
  for await (const result of client.streamBatchResults(BATCH_ID)) {
    if (result.custom_id === IDS[1]) break;
  }
  await cut;
  assert.ok(server.calls.length <= 2);
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
