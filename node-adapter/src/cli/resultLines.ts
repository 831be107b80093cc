// Result lines of Anthropic and OpenAI as ours, and ours as theirs.
import { createHash } from 'node:crypto';
import { blocksOf } from './content.js';
import { ConversionError, compact, Reader } from './fields.js';
import type { Fields } from './lines.js';
import { argumentsOf, callsOf, joined } from './openaiMessages.js';

const STATUSES = ['succeeded', 'errored', 'canceled', 'expired'];
const ANTHROPIC_ERRORS = new Set([
  'invalid_request_error',
  'authentication_error',
  'billing_error',
  'permission_error',
  'not_found_error',
  'rate_limit_error',
  'timeout_error',
  'api_error',
  'overloaded_error',
]);
const FINISH: Readonly<Record<string, string>> = {
  end_turn: 'stop',
  stop_sequence: 'stop',
  max_tokens: 'length',
  tool_use: 'tool_calls',
};
const STOP: Readonly<Record<string, string>> = {
  stop: 'end_turn',
  length: 'max_tokens',
  tool_calls: 'tool_use',
  content_filter: 'refusal',
};
const STOPPED: Readonly<Record<string, string>> = { batch_cancelled: 'canceled', batch_expired: 'expired' };

interface OurResult {
  readonly customId: string;
  readonly status: string;
  readonly message: Reader | undefined;
  readonly usage: { readonly input: number; readonly output: number };
  readonly error: { readonly type: string; readonly message: string };
  readonly model: string;
}

function readOurs(line: Fields): OurResult {
  const top = new Reader(line, '');
  const status = top.text('status') ?? '';
  if (!STATUSES.includes(status))
    throw new ConversionError('status', `must be one of ${STATUSES.join(', ')}`);
  const message = top.object('message');
  if (status === 'succeeded') top.needed('message', message);
  const usage = top.object('usage');
  const error = top.object('error');
  return {
    customId: top.needed('custom_id', top.text('custom_id')),
    status,
    message,
    usage: { input: usage?.number('input_tokens') ?? 0, output: usage?.number('output_tokens') ?? 0 },
    error: { type: error?.text('type') ?? 'api_error', message: error?.text('message') ?? '' },
    model: top.text('model') ?? '',
  };
}

/** A made-up id, which our lines have none of: the same for the same request. */
function idOf(prefix: string, customId: string): string {
  return prefix + createHash('sha256').update(customId).digest('hex').slice(0, 24);
}

/** A result of ours as a line of Anthropic's. */
export function toAnthropicResult(line: Fields): Fields {
  const { customId, status, message, usage, error, model } = readOurs(line);
  if (status === 'succeeded' && message !== undefined) {
    const theirs = {
      id: idOf('msg_', customId),
      type: 'message',
      role: 'assistant',
      model,
      content: message.any('content'),
      stop_reason: message.text('stop_reason') ?? 'end_turn',
      stop_sequence: message.text('stop_sequence') ?? null,
      usage: { input_tokens: usage.input, output_tokens: usage.output },
    };
    return { custom_id: customId, result: { type: status, message: theirs } };
  }
  if (status !== 'errored') return { custom_id: customId, result: { type: status } };
  const type = ANTHROPIC_ERRORS.has(error.type) ? error.type : 'api_error';
  const body = { type: 'error', error: { type, message: error.message }, request_id: null };
  return { custom_id: customId, result: { type: 'errored', error: body } };
}

/** A result of Anthropic's as a line of ours. */
export function fromAnthropicResult(line: Fields): Fields {
  const top = new Reader(line, '');
  const custom_id = top.needed('custom_id', top.text('custom_id'));
  const result = top.needed('result', top.object('result'));
  const status = result.text('type') ?? '';
  if (status === 'succeeded') {
    const message = result.needed('message', result.object('message'));
    blocksOf(message.any('content'), message.at('content'));
    const usage = message.object('usage');
    const stop_reason = message.text('stop_reason') ?? 'end_turn';
    const stop_sequence = message.text('stop_sequence') ?? null;
    return succeeded(
      custom_id,
      { content: message.any('content'), stop_reason, stop_sequence },
      {
        input_tokens: usage?.number('input_tokens') ?? 0,
        output_tokens: usage?.number('output_tokens') ?? 0,
      },
      message.text('model'),
    );
  }
  const error = result.object('error')?.object('error');
  if (status === 'errored') return failed(custom_id, status, error?.text('type'), error?.text('message'));
  if (!STATUSES.includes(status))
    throw new ConversionError('result.type', `must be one of ${STATUSES.join(', ')}`);
  return failed(custom_id, status, status, `the request was ${status}`);
}

/** A result of ours as a line of OpenAI's output or error file. `created` is 0: our lines bear no time. */
export function toOpenAIResult(line: Fields): Fields {
  const { customId, status, message, usage, error, model } = readOurs(line);
  const id = idOf('batch_req_', customId);
  if (status === 'canceled' || status === 'expired') {
    const code = status === 'canceled' ? 'batch_cancelled' : 'batch_expired';
    return { id, custom_id: customId, response: null, error: { code, message: error.message } };
  }
  const answer = (status_code: number, body: Fields) => ({
    id,
    custom_id: customId,
    response: { status_code, request_id: idOf('req_', customId), body },
    error: null,
  });
  if (message === undefined || status === 'errored') {
    const code = error.type === 'invalid_request_error' ? 400 : 500;
    return answer(code, { error: { message: error.message, type: error.type, param: null, code: null } });
  }
  const blocks = blocksOf(message.any('content'), 'message.content');
  const calls = callsOf(blocks);
  const text = joined(blocks);
  const said = { role: 'assistant', content: text === '' && calls.length > 0 ? null : text, refusal: null };
  const choice = {
    index: 0,
    message: calls.length === 0 ? said : { ...said, tool_calls: calls },
    logprobs: null,
    finish_reason: FINISH[message.text('stop_reason') ?? 'end_turn'] ?? 'stop',
  };
  return answer(200, {
    id: idOf('chatcmpl-', customId),
    object: 'chat.completion',
    created: 0,
    model,
    choices: [choice],
    usage: {
      prompt_tokens: usage.input,
      completion_tokens: usage.output,
      total_tokens: usage.input + usage.output,
    },
  });
}

/** A line of OpenAI's output or error file as a result of ours. */
export function fromOpenAIResult(line: Fields): Fields {
  const top = new Reader(line, '');
  const custom_id = top.needed('custom_id', top.text('custom_id'));
  const refusal = top.object('error');
  const body = top.object('response')?.object('body');
  if (refusal !== undefined || body === undefined) {
    const code = refusal?.text('code') ?? 'api_error';
    return failed(custom_id, STOPPED[code] ?? 'errored', STOPPED[code] ?? code, refusal?.text('message'));
  }
  const error = body.object('error');
  if (error !== undefined) return failed(custom_id, 'errored', error.text('type'), error.text('message'));
  const choices = body.needed('choices', body.list('choices'));
  const choice = new Reader(choices[0], `${body.path}.choices[0]`);
  const usage = body.object('usage');
  const finish = choice.text('finish_reason') ?? 'stop';
  return succeeded(
    custom_id,
    {
      content: contentOf(choice.needed('message', choice.object('message'))),
      stop_reason: STOP[finish] ?? 'end_turn',
      stop_sequence: null,
    },
    {
      input_tokens: usage?.number('prompt_tokens') ?? 0,
      output_tokens: usage?.number('completion_tokens') ?? 0,
    },
    body.text('model'),
  );
}

function contentOf(message: Reader): Fields[] {
  const text = message.text('content') ?? '';
  const uses = (message.list('tool_calls') ?? []).map((value, n) => {
    const call = new Reader(value, `${message.at('tool_calls')}[${n}]`);
    const called = call.needed('function', call.object('function'));
    const name = called.needed('name', called.text('name'));
    return { type: 'tool_use', id: call.needed('id', call.text('id')), name, input: argumentsOf(called) };
  });
  return text === '' && uses.length > 0 ? uses : [{ type: 'text', text }, ...uses];
}

function succeeded(custom_id: string, message: Fields, usage: Fields, model: string | undefined): Fields {
  return compact({ custom_id, status: 'succeeded', message, usage, error: null, model });
}

function failed(custom_id: string, status: string, type = 'api_error', message = ''): Fields {
  return { custom_id, status, message: null, usage: null, error: { type, message } };
}
