import assert from 'node:assert/strict';
import { test } from 'node:test';
import { intervalMs } from '../src/polling.js';
import { parseRetryAfterMs, retryDelayMs } from '../src/retry.js';

const first = { failures: 1, maxRetries: 5, retryAfterMs: undefined, remainingMs: 600_000, random: 1 };

test('the longest possible wait doubles up to the cap', () => {
  const waits = [1, 2, 3, 4, 5, 6, 7].map((failures) => retryDelayMs({ ...first, failures, maxRetries: 9 }));
  assert.deepEqual(waits, [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000]);
});

test('jitter is full: a wait may be nothing at all', () => {
  assert.equal(retryDelayMs({ ...first, random: 0 }), 0);
  assert.equal(retryDelayMs({ ...first, random: 0.25 }), 125);
});

test('the server may ask for more than our own wait, never for less', () => {
  assert.equal(retryDelayMs({ ...first, retryAfterMs: 60_000 }), 60_000);
  assert.equal(retryDelayMs({ ...first, retryAfterMs: 1 }), 500);
});

test('no try is made after the last one or after the deadline', () => {
  assert.equal(retryDelayMs({ ...first, failures: 6 }), null);
  assert.equal(retryDelayMs({ ...first, remainingMs: 500 }), null);
  assert.equal(retryDelayMs({ ...first, retryAfterMs: 600_000 }), null);
});

test('Retry-After is read as seconds or as a date; nonsense is as good as none', () => {
  const now = Date.UTC(2026, 7, 1, 12, 0, 0);
  assert.equal(parseRetryAfterMs('3', now), 3_000);
  assert.equal(parseRetryAfterMs('0.5', now), 500);
  assert.equal(parseRetryAfterMs('Sat, 01 Aug 2026 12:00:09 GMT', now), 9_000);
  assert.equal(parseRetryAfterMs('Sat, 01 Aug 2026 11:00:00 GMT', now), 0);
  assert.equal(parseRetryAfterMs('-4', now), 0);
  for (const nothing of [null, '', ' ', 'soon', 'Infinity'])
    assert.equal(parseRetryAfterMs(nothing, now), undefined);
});

test('intervals grow by their factor up to their cap', () => {
  const schedule = { startMs: 10, factor: 2, capMs: 50 };
  assert.deepEqual(
    [0, 1, 2, 3, 400].map((poll) => intervalMs(schedule, poll)),
    [10, 20, 40, 50, 50],
  );
});
