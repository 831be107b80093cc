import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isRequestTooLargeError } from '../src/errors.js';
import { cutParts, PART_MAX_BYTES, type Part } from '../src/parts.js';
import { errorOf } from './support/setup.js';

const bare = () => ['', ''] as const;

async function allParts(
  requests: Iterable<unknown> | AsyncIterable<unknown>,
  maxBytes?: number,
): Promise<Part[]> {
  const parts: Part[] = [];
  for await (const part of cutParts(requests, bare, maxBytes)) parts.push(part);
  return parts;
}

async function* oneByOne<T>(items: Iterable<T>): AsyncGenerator<T> {
  yield* items;
}

const TEXTS = ['a', 'żółć 🦊', '"\\\n', '\u2028', '', 'x'.repeat(30)];
const requests = Array.from({ length: 40 }, (_, n) => ({ custom_id: `${n}`, text: TEXTS[n % TEXTS.length] }));

for (const maxBytes of [67, 68, 100, 333, 1_000, 10_000]) {
  test(`parts of ${maxBytes} bytes hold every request once, in order, and none is larger`, async () => {
    const parts = await allParts(requests, maxBytes);
    const lists = parts.map((part) => JSON.parse(part.body.toString('utf8')) as unknown[]);
    assert.deepEqual(lists.flat(), requests);
    let first = 0;
    for (const [n, part] of parts.entries()) {
      assert.ok(part.bytes <= maxBytes, `${part.bytes}`);
      assert.equal(part.body.length, part.bytes);
      assert.equal(part.body.toString('utf8'), JSON.stringify(lists[n]), 'as JSON.stringify writes it');
      assert.deepEqual([part.number, part.first, part.requests], [n, first, lists[n]?.length]);
      assert.equal(part.last, n === parts.length - 1);
      first += part.requests;
    }
  });
}

test('a part is as full as it may be', async () => {
  const text = JSON.stringify(requests.slice(0, 3));
  const bytes = Buffer.byteLength(text);
  assert.equal((await allParts(requests.slice(0, 3), bytes)).length, 1);
  assert.equal((await allParts(requests.slice(0, 3), bytes - 1)).length, 2);
});

test('an array, a generator and an async generator are cut alike', async () => {
  const cut = async (source: Iterable<unknown> | AsyncIterable<unknown>) =>
    (await allParts(source, 333)).map((part) => part.body.toString('utf8'));
  const expected = await cut(requests);
  assert.deepEqual(await cut(requests.values()), expected);
  assert.deepEqual(await cut(oneByOne(requests)), expected);
});

test('no requests are one empty part', async () => {
  const [part, ...more] = await allParts([]);
  assert.deepEqual(
    [part?.body.toString('utf8'), part?.requests, part?.last, more.length],
    ['[]', 0, true, 0],
  );
});

test('a request of exactly the limit goes, and one byte more is an error with its place', async () => {
  const fits = { t: 'x'.repeat(PART_MAX_BYTES - '[{"t":""}]'.length) };
  const [part] = await allParts([fits]);
  assert.equal(part?.body.length, PART_MAX_BYTES);
  const error = await errorOf(allParts([{ t: 'a' }, fits, { t: `${fits.t}x` }]));
  assert.ok(isRequestTooLargeError(error));
  assert.equal(error.param, 'requests[2]');
  assert.match(
    error.message,
    /requests\[2\]: 3999999 bytes of JSON, over the limit of 3999998 for one request$/,
  );
});
