import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import { test } from 'node:test';
import { clockText, progressBar, progressLine } from '../src/cli/progress.js';
import { type Screen, Terminal } from '../src/cli/terminal.js';
import { BATCH_ID, statusOf } from './support/setup.js';

const START = { atMs: 0, done: 0 };

function screen(isTTY: boolean): { screen: Screen; text: () => string } {
  let text = '';
  const stream = new Writable({
    decodeStrings: false,
    write: (chunk: string, _encoding, done) => {
      text += chunk;
      done();
    },
  });
  return { screen: Object.assign(stream, { isTTY, columns: 80 }), text: () => text };
}

test('a bar shows the share, the rate and what is left', () => {
  const status = statusOf('processing', 500, 1000);
  const bar = progressBar(status, START, 10_000, 80);
  assert.equal(bar, `[${'#'.repeat(20)}${'-'.repeat(20)}]  50%  500/1,000  50.0/s  ETA 0:10`);
});

test('the rate is that of what finished since the watch began', () => {
  const bar = progressBar(statusOf('processing', 500, 1000), { atMs: 0, done: 400 }, 10_000, 80);
  assert.match(bar, / 10\.0\/s {2}ETA 0:50$/);
});

test('failures are counted apart', () => {
  const status = { ...statusOf('ended', 3, 5), counts: { total: 5, succeeded: 3, errored: 2, pending: 0 } };
  assert.match(progressBar(status, START, 1000, 80), /100% {2}5\/5 {2}2 failed {2}5\.0\/s$/);
  assert.equal(progressLine(status), `${BATCH_ID} ended: 5 of 5 done, 2 failed`);
});

for (const columns of [20, 40, 60, 80, 200]) {
  test(`a bar never wraps: ${columns} columns`, () => {
    const bar = progressBar(statusOf('processing', 99_999, 100_000), START, 3_600_000, columns);
    assert.ok(bar.length < columns, bar);
  });
}

test('seconds are shown as a clock', () => {
  assert.deepEqual([0, 42, 725, 11_229].map(clockText), ['0:00', '0:42', '12:05', '3:07:09']);
});

test('a terminal redraws one line; a pipe gets a line wherever something changed', () => {
  for (const [isTTY, expected] of [
    [true, '\r\u001b[2Ka\r\u001b[2Kb\r\u001b[2Kdone\n'],
    [false, 'a\nb\ndone\n'],
  ] as const) {
    const err = screen(isTTY);
    const terminal = new Terminal(screen(isTTY).screen, err.screen, {}, { json: false, quiet: false });
    for (const text of ['a', 'a', 'b']) terminal.progress(text);
    terminal.note('done');
    assert.equal(err.text(), expected);
  }
});

test('quiet keeps progress and notes back, and warnings not', () => {
  const err = screen(true);
  const terminal = new Terminal(screen(true).screen, err.screen, {}, { json: false, quiet: true });
  terminal.progress('a');
  terminal.note('b');
  terminal.warn('c');
  assert.equal(err.text(), 'c\n');
});

const COLOURS: [string, boolean, Record<string, string>, boolean][] = [
  ['a terminal', true, {}, true],
  ['a pipe', false, {}, false],
  ['NO_COLOR', true, { NO_COLOR: '1' }, false],
  ['an empty NO_COLOR', true, { NO_COLOR: '' }, true],
  ['a dumb terminal', true, { TERM: 'dumb' }, false],
];
for (const [what, isTTY, env, coloured] of COLOURS) {
  test(`colours are for terminals that want them: ${what}`, () => {
    const terminal = new Terminal(screen(isTTY).screen, screen(isTTY).screen, env, {
      json: false,
      quiet: false,
    });
    assert.equal(terminal.colour('red', 'x') !== 'x', coloured);
  });
}
