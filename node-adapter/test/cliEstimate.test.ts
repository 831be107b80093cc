import assert from 'node:assert/strict';
import { test } from 'node:test';
import { dollars } from '../src/cli/estimate.js';
import { addRequest, emptyLoad, estimate, modelFor } from '../src/cli/estimateModel.js';
import type { Figures } from '../src/cli/figures.js';
import { type Model, promptTokens, tokensOf } from '../src/cli/tokens.js';

// Counted with the models' own tokenizers (Mistral's, and that of Llama 3).
const COUNTED: [string, string, Record<Model, number>][] = [
  [
    'English',
    'Write a short, friendly e-mail to the head of logistics about their new warehouse in Rotterdam.',
    { mistral: 23, 'llama-70b': 19 },
  ],
  [
    'German',
    'Schreibe eine kurze, freundliche E-Mail über das neue Lager in Rotterdam.',
    { mistral: 23, 'llama-70b': 18 },
  ],
  ['Chinese', '请写一封简短友好的电子邮件，谈谈他们在鹿特丹的新仓库。', { mistral: 34, 'llama-70b': 24 }],
  [
    'JSON',
    '{"id": 10432, "price": 19.95, "date": "2026-08-01", "tags": ["a", "b"]}',
    { mistral: 45, 'llama-70b': 35 },
  ],
];
for (const [what, text, counts] of COUNTED) {
  for (const [model, counted] of Object.entries(counts)) {
    test(`tokens are guessed within 30 % of what the tokenizer counts: ${what}, ${model}`, () => {
      const guessed = tokensOf(text, model as Model);
      assert.ok(Math.abs(guessed - counted) / counted < 0.3, `guessed ${guessed}, counted ${counted}`);
    });
  }
}

test('a pair of code units is one character', () => {
  assert.equal(tokensOf('🦔🦔', 'mistral'), 2 * tokensOf('🦔', 'mistral'));
  assert.equal(tokensOf('🦔', 'mistral'), 4.5);
});

test('a prompt counts its system text, its turns, its tools and its template', () => {
  const messages = [{ role: 'user', content: 'x'.repeat(100) }];
  const bare = promptTokens({ messages }, 'mistral');
  const blocks = [{ role: 'user', content: [{ type: 'text', text: 'x'.repeat(100) }] }];
  assert.equal(promptTokens({ messages: blocks }, 'mistral'), bare);
  assert.ok(promptTokens({ messages, system: 'x'.repeat(100) }, 'mistral') >= bare + 27);
  assert.ok(promptTokens({ messages, tools: [{ name: 'x'.repeat(100) }] }, 'mistral') >= bare + 27);
});

const ROUTES: [string, Record<string, unknown>, string | undefined, Model | undefined][] = [
  ['its hint', { metadata: { model_hint: 'llama-70b' }, params: {} }, 'email', 'llama-70b'],
  ['its stage', { params: { model: 'claude-opus-4' } }, 'email', 'mistral'],
  ['a small Claude', { params: { model: 'claude-haiku-4-5' } }, undefined, 'mistral'],
  ['a large Claude', { params: { model: 'claude-sonnet-4-5' } }, undefined, 'llama-70b'],
  ['an unknown model', { params: { model: 'gpt-4o' } }, undefined, undefined],
  ['nothing', { params: {} }, undefined, undefined],
];
for (const [what, request, stage, model] of ROUTES) {
  test(`a request is counted for the model that serves it: ${what}`, () => {
    assert.equal(modelFor(request, stage), model);
  });
}

const FIGURES: Figures = {
  model: 'mistral',
  worker: '1 x GPU',
  maxWorkers: 4,
  usdPerHour: 3.6,
  slots: 10,
  inputTokensPerS: 1000,
  outputTokensPerS: 100,
};

test('time and cost range from short answers on all workers to full ones on one', () => {
  const load = { requests: 100, inputTokens: 100_000, maxOutputTokens: 40_000, longestOutput: 400 };
  const { outputTokens, seconds, usd, managedUsd } = estimate(load, FIGURES);
  assert.deepEqual(outputTokens, { low: 10_000, high: 40_000 });
  // 100 s of prompts and 100 to 400 s of answers, on 4 workers or on one.
  assert.deepEqual(seconds, { low: 50, high: 500 });
  for (const [found, expected] of [
    [usd, { low: 0.2, high: 0.5 }],
    [managedUsd, { low: 0.075, high: 0.15 }],
  ] as const) {
    assert.deepEqual(
      [found.low.toFixed(6), found.high.toFixed(6)],
      [expected.low.toFixed(6), expected.high.toFixed(6)],
    );
  }
});

test('nothing ends before its longest answer', () => {
  const load = { requests: 1, inputTokens: 0, maxOutputTokens: 1000, longestOutput: 1000 };
  assert.deepEqual(estimate(load, FIGURES).seconds, { low: 25, high: 100 });
});

test('a request without max_tokens counts with the default of the service', () => {
  const load = emptyLoad();
  addRequest(load, { params: { messages: [] } }, 'mistral');
  addRequest(load, { params: { messages: [], max_tokens: 10 } }, 'mistral');
  assert.deepEqual([load.requests, load.maxOutputTokens, load.longestOutput], [2, 2058, 2048]);
});

test('dollars have the digits that matter', () => {
  assert.deepEqual([0, 0.001234, 0.5, 12, 1234.5].map(dollars), [
    '$0.00',
    '$0.0012',
    '$0.50',
    '$12.00',
    '$1,234.50',
  ]);
});
