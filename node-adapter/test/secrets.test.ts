import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { LlmBatchClient } from '../src/client.js';
import { isConfigurationError } from '../src/errors.js';
import { API_KEY, failed, http, type Reply } from './support/fakeRunpod.js';
import { BATCH_ID, errorOf, setUp } from './support/setup.js';

function everythingShown(value: unknown): string {
  const shown = [inspect(value, { depth: 10, showHidden: true }), String(value), JSON.stringify(value)];
  if (value instanceof Error) shown.push(value.stack ?? '', inspect(value.cause, { depth: 10 }));
  return shown.join('\n');
}

test('a client shows where it calls and never its key', () => {
  const client = new LlmBatchClient({ baseUrl: 'https://api.runpod.ai/v2/abc', apiKey: API_KEY });
  assert.ok(everythingShown(client).includes('api.runpod.ai'));
  assert.ok(!everythingShown(client).includes(API_KEY));
});

const echoes: Record<string, Reply> = {
  'a proxy that echoes the headers': http(403, `refused: Authorization: Bearer ${API_KEY}`),
  'a job error that quotes the key': failed(`KeyError: ${API_KEY}`),
  'a page that is no job': http(200, `<html>${API_KEY}</html>`),
  'a dropped connection': 'drop',
};
for (const [name, reply] of Object.entries(echoes)) {
  test(`the key is in no error: ${name}`, async (t) => {
    const { client } = await setUp(t, () => reply, { maxRetries: 0 });
    const error = await errorOf(client.getBatchStatus(BATCH_ID));
    assert.ok(!everythingShown(error).includes(API_KEY), everythingShown(error));
  });
}

test('a key with a line break is refused without being quoted', () => {
  const broken = `${API_KEY}\r\nx`;
  assert.throws(
    () => new LlmBatchClient({ baseUrl: 'https://api.runpod.ai/v2/abc', apiKey: broken }),
    (error) => isConfigurationError(error) && !everythingShown(error).includes(API_KEY),
  );
});

test('white space around the key is dropped', async (t) => {
  const { client, server } = await setUp(t, () => http(400, 'x'), { apiKey: ` ${API_KEY}\n` });
  await errorOf(client.getBatchStatus(BATCH_ID));
  assert.equal(server.calls[0]?.headers.authorization, `Bearer ${API_KEY}`);
});

test('a URL that is none is refused at once', () => {
  for (const baseUrl of ['', 'abc', 'ftp://x/y']) {
    assert.throws(() => new LlmBatchClient({ baseUrl, apiKey: 'k' }), isConfigurationError);
  }
});
