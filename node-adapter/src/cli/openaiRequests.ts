// Requests of OpenAI's batches (chat completions) as ours, and ours as theirs.
import { turnsOf } from './content.js';
import { ConversionError, compact, type Policy, Reader } from './fields.js';
import type { Fields } from './lines.js';
import { fromChat, toChat } from './openaiMessages.js';
import { dropOurs, modelOf, OUR_DEFAULTS, stopsOf, THEIR_TEMPERATURE } from './ourRequests.js';

const OPENAI = "OpenAI's format";
const CHAT = '/v1/chat/completions';
const STOPS_MAX = 4;
// Sampling parameters of the same name and meaning on both sides; the last are vLLM's own, which its users send so.
const SHARED = ['top_p', 'seed', 'presence_penalty', 'frequency_penalty'];
const ENGINE = ['top_k', 'min_p', 'repetition_penalty', 'min_tokens', 'ignore_eos'];
const NEUTRAL = ['service_tier', 'store', 'stream_options', 'prompt_cache_key', 'safety_identifier'];

/** A line of OpenAI's as a request of ours. */
export function fromOpenAI(line: Fields, policy: Policy): Fields {
  const top = new Reader(line, '');
  const customId = top.needed('custom_id', top.text('custom_id'));
  const url = top.text('url');
  if (url !== CHAT) throw new ConversionError('url', `only ${CHAT} can be converted`);
  if ((top.text('method') ?? 'POST') !== 'POST') throw new ConversionError('method', 'must be "POST"');
  const body = top.needed('body', top.object('body'));
  top.loseRest(policy, 'our format');
  const stop = body.any('stop');
  const params = compact({
    model: body.needed('model', body.text('model')),
    ...fromChat(body, policy),
    max_tokens: maxTokensOf(body),
    temperature: body.number('temperature') ?? THEIR_TEMPERATURE,
    ...taken(body, [...SHARED, ...ENGINE]),
    stop_sequences: typeof stop === 'string' ? [stop] : stop,
    response_format: body.any('response_format'),
    tools: body.list('tools')?.map((tool, n) => fromTool(new Reader(tool, `body.tools[${n}]`), policy)),
    tool_choice: fromToolChoice(body),
  });
  const user = body.text('user');
  const metadata = compact({ ...body.object('metadata')?.rest(), user_id: user });
  checkPlain(body);
  body.loseRest(policy, 'our format');
  return compact({ custom_id: customId, params, metadata });
}

function taken(reader: Reader, names: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(names.map((name) => [name, reader.any(name)]));
}

function maxTokensOf(body: Reader): number | undefined {
  const older = body.number('max_tokens');
  return body.number('max_completion_tokens') ?? older;
}

function checkPlain(body: Reader): void {
  for (const name of NEUTRAL) body.any(name);
  if ((body.number('n') ?? 1) !== 1) throw new ConversionError('body.n', 'there is one answer a request');
  if (body.boolean('stream') === true) throw new ConversionError('body.stream', 'no batch can stream');
  if (body.boolean('logprobs') === true) throw new ConversionError('body.logprobs', 'results have none');
}

function fromTool(tool: Reader, policy: Policy): Fields {
  if (tool.text('type') !== 'function') throw new ConversionError(tool.at('type'), 'must be "function"');
  const named = tool.needed('function', tool.object('function'));
  const ours = compact({
    name: named.needed('name', named.text('name')),
    description: named.text('description'),
  });
  const schema = named.any('parameters') ?? { type: 'object', properties: {} };
  named.boolean('strict');
  named.loseRest(policy, 'our format');
  return { ...ours, input_schema: schema };
}

const CHOICES: Readonly<Record<string, string>> = { auto: 'auto', none: 'none', required: 'any' };

function fromToolChoice(body: Reader): Fields | undefined {
  const choice = body.any('tool_choice');
  const serial = body.boolean('parallel_tool_calls') === false ? { disable_parallel_tool_use: true } : {};
  if (choice === undefined)
    return 'disable_parallel_tool_use' in serial ? { type: 'auto', ...serial } : undefined;
  if (typeof choice === 'string') {
    const type = CHOICES[choice];
    if (type !== undefined) return type === 'none' ? { type } : { type, ...serial };
    throw new ConversionError('body.tool_choice', 'must be "auto", "none", "required" or a function');
  }
  const named = new Reader(choice, 'body.tool_choice').object('function');
  if (named === undefined) throw new ConversionError('body.tool_choice', 'must name a function');
  return { type: 'tool', name: named.needed('name', named.text('name')), ...serial };
}

/** A request of ours as a line of OpenAI's. */
export function toOpenAI(request: Fields, policy: Policy): Fields {
  const top = new Reader(request, '');
  const customId = top.needed('custom_id', top.text('custom_id'));
  const params = top.needed('params', top.object('params'));
  const notes = top.object('metadata');
  top.loseRest(policy, OPENAI);
  const stops = stopsOf(params);
  if (stops !== undefined && stops.length > STOPS_MAX) {
    throw new ConversionError(params.at('stop_sequences'), `${OPENAI} takes ${STOPS_MAX} at most`);
  }
  const body = compact({
    model: modelOf(params, notes, policy, OPENAI),
    messages: toChat(params.any('system'), params.at('system'), turnsOf(params), policy),
    max_completion_tokens: params.number('max_tokens') ?? OUR_DEFAULTS.max_tokens,
    temperature: params.number('temperature') ?? OUR_DEFAULTS.temperature,
    ...taken(params, SHARED),
    stop: stops,
    response_format: params.any('response_format'),
    tools: params.list('tools')?.map((tool, n) => toTool(new Reader(tool, `params.tools[${n}]`), policy)),
    ...toToolChoice(params),
    user: notes?.text('user_id'),
  });
  dropOurs(params, policy, OPENAI);
  const metadata = notesOf(notes, policy);
  return { custom_id: customId, method: 'POST', url: CHAT, body: compact({ ...body, metadata }) };
}

function notesOf(notes: Reader | undefined, policy: Policy): Fields {
  const kept = Object.entries(notes?.rest() ?? {}).filter(([name, value]) => {
    if (typeof value === 'string') return true;
    policy.lose(`metadata.${name}`, `${OPENAI} takes text only`);
    return false;
  });
  return Object.fromEntries(kept);
}

function toTool(tool: Reader, policy: Policy): Fields {
  tool.text('type');
  const named = compact({
    name: tool.needed('name', tool.text('name')),
    description: tool.text('description'),
  });
  const parameters = tool.needed('input_schema', tool.any('input_schema'));
  tool.any('cache_control');
  tool.loseRest(policy, OPENAI);
  return { type: 'function', function: { ...named, parameters } };
}

function toToolChoice(params: Reader): Fields {
  const choice = params.object('tool_choice');
  if (choice === undefined) return {};
  const serial = choice.boolean('disable_parallel_tool_use') === true ? { parallel_tool_calls: false } : {};
  const type = choice.text('type');
  if (type === 'tool') {
    const name = choice.needed('name', choice.text('name'));
    return { tool_choice: { type: 'function', function: { name } }, ...serial };
  }
  const word = Object.entries(CHOICES).find(([, ours]) => ours === type)?.[0];
  if (word === undefined) throw new ConversionError(choice.at('type'), 'must be auto, any, tool or none');
  return { tool_choice: word, ...serial };
}
