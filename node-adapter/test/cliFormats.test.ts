import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConversionError, type Policy, STRICT } from '../src/cli/fields.js';
import { type Format, fromOurs, type Kind, shapeOf, toOurs } from '../src/cli/formats.js';
import type { Fields } from '../src/cli/lines.js';

const TOOL = { name: 'look_up', description: 'Looks up.', input_schema: { type: 'object', properties: {} } };
const OURS = {
  custom_id: 'lead_1',
  params: {
    model: 'claude-haiku-4-5',
    system: 'Be brief.',
    messages: [
      { role: 'user', content: 'Who is it?' },
      { role: 'assistant', content: [{ type: 'text', text: 'One moment.' }, use('t1'), use('t2')] },
      { role: 'user', content: [answer('t1', 'Ada'), answer('t2', 'Lovelace')] },
    ],
    max_tokens: 100,
    temperature: 0.5,
    top_p: 0.9,
    stop_sequences: ['END'],
    tools: [TOOL],
    tool_choice: { type: 'tool', name: 'look_up', disable_parallel_tool_use: true },
    response_format: { type: 'json_schema', json_schema: { schema: { type: 'object' } } },
  },
  metadata: { user_id: 'u1' },
};

function use(id: string) {
  return { type: 'tool_use', id, name: 'look_up', input: { n: 1 } };
}

function answer(id: string, content: string) {
  return { type: 'tool_result', tool_use_id: id, content };
}

function chat(body: Fields): Fields {
  return { custom_id: 'a', method: 'POST', url: '/v1/chat/completions', body };
}

const MESSAGES = [{ role: 'user', content: 'Hi' }];

function request(params: Fields, more: Fields = {}): Fields {
  return { custom_id: 'a', params: { messages: MESSAGES, ...params }, ...more };
}

function there(line: Fields, format: Format, kind: Kind = 'requests', policy: Policy = STRICT): Fields {
  return fromOurs(line, { format, kind }, policy);
}

function back(line: Fields, format: Format, kind: Kind = 'requests', policy: Policy = STRICT): Fields {
  return toOurs(line, { format, kind }, policy);
}

for (const format of ['anthropic', 'openai'] as const) {
  test(`a request with tools, a schema and notes is the same after a trip to ${format} and back`, () => {
    assert.deepEqual(back(there(OURS, format), format), OURS);
  });

  test(`defaults of ours are written out for ${format}, which has others`, () => {
    const line = there(request({ model: 'm' }), format);
    const params = (line['params'] ?? line['body']) as Fields;
    assert.equal(params['temperature'], 0.2);
    assert.equal(params['max_tokens'] ?? params['max_completion_tokens'], 2048);
  });

  test(`a request that names no model takes the given one for ${format}, or its hint, or fails`, () => {
    const named = (line: Fields, policy: Policy) => {
      const made = there(line, format, 'requests', policy);
      return ((made['params'] ?? made['body']) as Fields)['model'];
    };
    assert.equal(named(request({}), { ...STRICT, model: 'mine' }), 'mine');
    assert.equal(named(request({}, { metadata: { model_hint: 'mistral' } }), STRICT), 'mistral');
    assert.throws(() => named(request({}), STRICT), /^Error: params\.model: .*--model/);
  });

  test(`a line of results of each status is the same after a trip to ${format} and back`, () => {
    const usage = { input_tokens: 7, output_tokens: 3 };
    const message = {
      content: [{ type: 'text', text: 'Hi' }],
      stop_reason: 'max_tokens',
      stop_sequence: null,
    };
    const called = { content: [use('t1')], stop_reason: 'tool_use', stop_sequence: null };
    const none = { message: null, usage: null };
    const lines = [
      { custom_id: 'a', status: 'succeeded', message, usage, error: null, model: 'mistral' },
      { custom_id: 'b', status: 'succeeded', message: called, usage, error: null, model: 'mistral' },
      {
        custom_id: 'c',
        status: 'errored',
        ...none,
        error: { type: 'invalid_request_error', message: 'No.' },
      },
      {
        custom_id: 'd',
        status: 'canceled',
        ...none,
        error: { type: 'canceled', message: 'the request was canceled' },
      },
      {
        custom_id: 'e',
        status: 'expired',
        ...none,
        error: { type: 'expired', message: 'the request was expired' },
      },
    ];
    for (const line of lines) assert.deepEqual(back(there(line, format, 'results'), format, 'results'), line);
  });
}

test("Anthropic's and OpenAI's default temperature is written out for us, who have another", () => {
  const ours = back(request({ model: 'claude-x', max_tokens: 5 }), 'anthropic');
  assert.deepEqual(ours['params'], { model: 'claude-x', messages: MESSAGES, max_tokens: 5, temperature: 1 });
  const chatted = back(chat({ model: 'gpt', messages: MESSAGES }), 'openai');
  assert.deepEqual(chatted['params'], { model: 'gpt', messages: MESSAGES, temperature: 1 });
});

test("OpenAI's leading system and developer messages become the system text", () => {
  const messages = [
    { role: 'system', content: 'One.' },
    { role: 'developer', content: [{ type: 'text', text: 'Two.' }] },
    ...MESSAGES,
  ];
  const { params } = back(
    chat({ model: 'gpt', messages, stop: 'END', parallel_tool_calls: false }),
    'openai',
  );
  assert.deepEqual(params, {
    model: 'gpt',
    system: 'One.\n\nTwo.',
    messages: MESSAGES,
    temperature: 1,
    stop_sequences: ['END'],
    tool_choice: { type: 'auto', disable_parallel_tool_use: true },
  });
});

test('an errored result of ours has an error of the types that Anthropic knows', () => {
  const line = {
    custom_id: 'a',
    status: 'errored',
    message: null,
    usage: null,
    error: { type: 'worker_error', message: 'x' },
  };
  assert.deepEqual(there(line, 'anthropic', 'results')['result'], {
    type: 'errored',
    error: { type: 'error', error: { type: 'api_error', message: 'x' }, request_id: null },
  });
});

// What is fed to which reader, and the beginning of the error: the path of the field at fault.
const IMAGE = [
  {
    role: 'user',
    content: [
      { type: 'text', text: 'see' },
      { type: 'image', source: {} },
    ],
  },
];
const PART = [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }];
const FAULTS: [string, () => unknown, RegExp][] = [
  [
    'an image for us',
    () => back(request({ model: 'c', max_tokens: 1, messages: IMAGE }), 'anthropic'),
    /^params\.messages\[0\]\.content\[1\]: image blocks are not supported; the model reads text only$/,
  ],
  [
    'a chat with an image',
    () => back(chat({ model: 'm', messages: PART }), 'openai'),
    /^body\.messages\[0\]\.content\[0\]: image_url blocks/,
  ],
  [
    "Anthropic's without a model",
    () => back(request({ max_tokens: 1 }), 'anthropic'),
    /^params\.model: is missing$/,
  ],
  [
    'thinking',
    () => back(request({ model: 'c', max_tokens: 1, thinking: { type: 'enabled' } }), 'anthropic'),
    /^params\.thinking: /,
  ],
  [
    'a server tool',
    () => back(request({ model: 'c', max_tokens: 1, tools: [{ type: 'web_search_20250305' }] }), 'anthropic'),
    /^params\.tools\[0\]: /,
  ],
  [
    'an unknown parameter',
    () => back(request({ model: 'c', max_tokens: 1, surprise: 1 }), 'anthropic'),
    /^params\.surprise: has no place in our format$/,
  ],
  ['another OpenAI route', () => back({ ...chat({}), url: '/v1/embeddings' }, 'openai'), /^url: /],
  ['several answers', () => back(chat({ model: 'm', messages: MESSAGES, n: 2 }), 'openai'), /^body\.n: /],
  [
    'log probabilities',
    () => back(chat({ model: 'm', messages: MESSAGES, logprobs: true }), 'openai'),
    /^body\.logprobs: /,
  ],
  [
    'a late system message',
    () => back(chat({ model: 'm', messages: [...MESSAGES, { role: 'system', content: 'x' }] }), 'openai'),
    /^body\.messages\[1\]\.role: /,
  ],
  [
    'arguments that are no JSON',
    () =>
      back(
        chat({
          model: 'm',
          messages: [
            { role: 'assistant', tool_calls: [{ id: 't', function: { name: 'f', arguments: '{' } }] },
          ],
        }),
        'openai',
      ),
    /^body\.messages\[0\]\.tool_calls\[0\]\.function\.arguments: /,
  ],
  [
    'a custom_id that Anthropic refuses',
    () => there({ ...request({ model: 'm' }), custom_id: 'a b' }, 'anthropic'),
    /^custom_id: /,
  ],
  [
    'a temperature that Anthropic refuses',
    () => there(request({ model: 'm', temperature: 1.5 }), 'anthropic'),
    /^params\.temperature: /,
  ],
  [
    'a seed for Anthropic',
    () => there(request({ model: 'm', seed: 1 }), 'anthropic'),
    /^params\.seed: has no place in Anthropic's format$/,
  ],
  [
    'top_k for OpenAI',
    () => there(request({ model: 'm', top_k: 5 }), 'openai'),
    /^params\.top_k: has no place in OpenAI's format$/,
  ],
  [
    'five stops for OpenAI',
    () => there(request({ model: 'm', stop_sequences: [...'12345'] }), 'openai'),
    /^params\.stop_sequences: /,
  ],
  [
    'notes for Anthropic',
    () => there(request({ model: 'm' }, { metadata: { leadId: 'L1' } }), 'anthropic'),
    /^metadata\.leadId: /,
  ],
  ['ours without custom_id', () => back({ params: { messages: MESSAGES } }, 'ours'), /^custom_id: /],
  [
    'ours with a custom_id that is too long',
    () => back({ ...request({}), custom_id: 'x'.repeat(257) }, 'ours'),
    /^custom_id: must have 1 to 256 characters$/,
  ],
  ['ours without messages', () => back({ custom_id: 'a', params: {} }, 'ours'), /^params\.messages: /],
];
for (const [what, convert, message] of FAULTS) {
  test(`what can't be converted is named by its field: ${what}`, () => {
    assert.throws(convert, (error) => error instanceof ConversionError && message.test(error.message));
  });
}

test('a lossy conversion leaves out what has no counterpart, and says how often', () => {
  const lost: string[] = [];
  const policy = { lose: (path: string) => lost.push(path) };
  const line = request({ model: 'm', seed: 1, min_p: 0.1 }, { metadata: { leadId: 'L1' } });
  const { params } = there(line, 'anthropic', 'requests', policy);
  assert.deepEqual(params, { model: 'm', max_tokens: 2048, messages: MESSAGES, temperature: 0.2 });
  assert.deepEqual(lost.sort(), ['metadata.leadId', 'params.min_p', 'params.seed']);
});

const SHAPES: [string, Fields, Format, Kind][] = [
  ['a request of ours', request({}), 'ours', 'requests'],
  [
    'a request of ours with a model of ours',
    request({ model: 'mistral', max_tokens: 1 }),
    'ours',
    'requests',
  ],
  [
    "Anthropic's request by its model",
    request({ model: 'claude-x', max_tokens: 1 }),
    'anthropic',
    'requests',
  ],
  [
    "Anthropic's request by a parameter",
    request({ model: 'm', metadata: { user_id: 'u' } }),
    'anthropic',
    'requests',
  ],
  ["OpenAI's request", chat({}), 'openai', 'requests'],
  ['a result of ours', { custom_id: 'a', status: 'expired' }, 'ours', 'results'],
  ["Anthropic's result", { custom_id: 'a', result: { type: 'expired' } }, 'anthropic', 'results'],
  ["OpenAI's result", { custom_id: 'a', response: null, error: {} }, 'openai', 'results'],
];
for (const [what, line, format, kind] of SHAPES) {
  test(`the format is found out: ${what}`, () => {
    assert.deepEqual(shapeOf(line), { format, kind });
  });
}
