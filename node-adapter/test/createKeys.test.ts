import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CreateKeys } from '../src/createKeys.js';

test('a key is taken once, and the latest first', () => {
  const keys = new CreateKeys(() => 0);
  keys.keep('content', 'abandoned');
  keys.keep('content', 'failed');
  assert.equal(keys.take('other'), undefined);
  assert.equal(keys.take('content'), 'failed');
  assert.equal(keys.take('content'), 'abandoned');
  assert.equal(keys.take('content'), undefined);
});

test('a key that nobody came back for is forgotten', () => {
  let now = 0;
  const keys = new CreateKeys(() => now);
  keys.keep('content', 'old');
  now = 600_000;
  assert.equal(keys.take('content'), undefined);
});

test('the number of kept keys is bounded', () => {
  const keys = new CreateKeys(() => 0);
  for (let n = 0; n <= 1_000; n += 1) keys.keep(`content ${n}`, `key ${n}`);
  assert.equal(keys.take('content 0'), undefined);
  assert.equal(keys.take('content 1'), 'key 1');
  assert.equal(keys.take('content 1000'), 'key 1000');
});
