import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { test } from 'node:test';
import { byReference, findRequests, MalformedJson, type Part, partsOf } from '../src/requestParts.js';

interface Cut {
  readonly parts: readonly Part[];
  readonly reference: string;
}

function cut(text: string, maxBytes: number): Cut {
  const place = findRequests(text);
  assert.ok(place, 'there are requests');
  const cutter = partsOf(text, place, maxBytes);
  const parts: Part[] = [];
  let next = cutter.next();
  for (; !next.done; next = cutter.next()) parts.push(next.value);
  const reference = byReference(text, place, next.value, { key: 'k', parts: parts.length });
  return { parts, reference };
}

// Text that a scanner could take for structure, and characters of one to four bytes.
const TEXTS = ['', '"', '\\', '\\"', '\\\\', '"}],{', '[{', '\n\t', 'é', 'ключ', '🦔', '"requests":['];

function sample(n: number): unknown[] {
  return Array.from({ length: n }, (_, i) => ({
    custom_id: `r${i}`,
    params: {
      messages: [{ role: 'user', content: `${TEXTS[i % TEXTS.length]} ${'x'.repeat((i * 7) % 40)}` }],
      stop_sequences: TEXTS.slice(0, i % TEXTS.length),
      temperature: i / 10,
      nested: [[], {}, [[{ a: null }]], true],
    },
  }));
}

for (const indent of [0, 2]) {
  for (const maxBytes of [1, 300, 1_000, 1_000_000]) {
    test(`the parts hold every request once, in order (indented by ${indent}, ${maxBytes} bytes a part)`, () => {
      const requests = sample(40);
      const text = JSON.stringify(
        { before: '"requests":[1]', requests, after: [1, { requests: [] }] },
        null,
        indent,
      );
      const { parts, reference } = cut(text, maxBytes);
      const held = parts.map(({ body }) => JSON.parse(body).requests as unknown[]);
      assert.deepEqual(held.flat(), requests);
      let first = 0;
      for (const [n, part] of parts.entries()) {
        assert.equal(part.firstRequest, first);
        first += held[n]?.length ?? 0;
      }
      assert.deepEqual(JSON.parse(reference), {
        before: '"requests":[1]',
        upload: { key: 'k', parts: parts.length },
        after: [1, { requests: [] }],
      });
    });
  }
}

test('a part has at most so many bytes unless one request is larger', () => {
  const text = JSON.stringify({ requests: ['🦔'.repeat(10), 'aaa', 'bbb', 'c'.repeat(100), 'd'] });
  const bodies = cut(text, 30).parts.map(({ body }) => body);
  const values = bodies.map((body) => JSON.parse(body).requests);
  assert.deepEqual(values, [['🦔'.repeat(10)], ['aaa', 'bbb'], ['c'.repeat(100)], ['d']]);
  assert.ok(Buffer.byteLength(bodies[1] ?? '') <= 30 + '{"requests":[]}'.length);
});

test('no requests make no part', () => {
  const { parts, reference } = cut('{ "requests" : [ ] }', 100);
  assert.deepEqual(parts, []);
  assert.deepEqual(JSON.parse(reference), { upload: { key: 'k', parts: 0 } });
});

for (const text of [
  '',
  '[]',
  '"requests"',
  '{}',
  '{"requests":{}}',
  '{"a":{"requests":[1]}}',
  '{a:1}',
  '{"a" 1}',
]) {
  test(`a body without requests at its top has none to cut: ${text}`, () => {
    assert.equal(findRequests(text), undefined);
  });
}

for (const text of [
  '{"requests":[',
  '{"requests":[1',
  '{"requests":[1,',
  '{"requests":[,1]}',
  '{"requests":[{} {}]}',
  '{"requests":["a]}',
  '{"requests":[{"a":[}',
]) {
  test(`requests without an end are refused: ${text}`, () => {
    assert.throws(() => cut(text, 100), MalformedJson);
  });
}

test('a body that ends within a value before the requests is refused', () => {
  assert.throws(() => findRequests('{"a":"b'), MalformedJson);
});
