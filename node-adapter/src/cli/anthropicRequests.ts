// Requests of Anthropic's batches as ours, and ours as theirs.
import { turnsOf } from './content.js';
import { ConversionError, compact, isObject, type Policy, Reader } from './fields.js';
import type { Fields } from './lines.js';
import { dropOurs, modelOf, OUR_DEFAULTS, stopsOf, THEIR_TEMPERATURE } from './ourRequests.js';

const ANTHROPIC = "Anthropic's format";
const CUSTOM_ID = /^[a-zA-Z0-9_-]{1,64}$/;
// They change where or how a request is served, and nothing that it is answered.
const NEUTRAL = ['service_tier', 'inference_geo', 'cache_control', 'container', 'context_management'];

/** A line of Anthropic's as a request of ours. */
export function fromAnthropic(line: Fields, policy: Policy): Fields {
  const top = new Reader(line, '');
  const customId = top.needed('custom_id', top.text('custom_id'));
  const params = top.needed('params', top.object('params'));
  top.loseRest(policy, 'our format');
  turnsOf(params);
  const ours = compact({
    model: params.needed('model', params.text('model')),
    system: params.any('system'),
    messages: params.any('messages'),
    max_tokens: params.needed('max_tokens', params.number('max_tokens')),
    temperature: params.number('temperature') ?? THEIR_TEMPERATURE,
    top_p: params.number('top_p'),
    top_k: params.number('top_k'),
    stop_sequences: params.list('stop_sequences'),
    tools: toolsOf(params),
    tool_choice: params.any('tool_choice'),
    response_format: responseFormatOf(params, policy),
  });
  const metadata = params.any('metadata');
  checkPlain(params);
  params.loseRest(policy, 'our format');
  return compact({ custom_id: customId, params: ours, metadata });
}

function toolsOf(params: Reader): readonly unknown[] | undefined {
  const tools = params.list('tools');
  for (const [n, tool] of (tools ?? []).entries()) {
    const reader = new Reader(tool, `${params.at('tools')}[${n}]`);
    const type = reader.text('type') ?? 'custom';
    if (type !== 'custom') throw new ConversionError(reader.path, `the tool ${type} runs at Anthropic only`);
  }
  return tools;
}

function responseFormatOf(params: Reader, policy: Policy): unknown {
  const config = params.object('output_config');
  const format = config?.object('format') ?? params.object('output_format');
  config?.loseRest(policy, 'our format');
  if (format === undefined) return undefined;
  if (format.text('type') !== 'json_schema') {
    throw new ConversionError(format.at('type'), 'must be "json_schema"');
  }
  return { type: 'json_schema', json_schema: { schema: format.needed('schema', format.any('schema')) } };
}

function checkPlain(params: Reader): void {
  for (const name of NEUTRAL) params.any(name);
  const thinking = params.object('thinking')?.text('type') ?? 'disabled';
  if (thinking !== 'disabled')
    throw new ConversionError(params.at('thinking'), 'the models do not think aloud');
  if (params.boolean('stream') === true)
    throw new ConversionError(params.at('stream'), 'no batch can stream');
}

/** A request of ours as a line of Anthropic's. */
export function toAnthropic(request: Fields, policy: Policy): Fields {
  const top = new Reader(request, '');
  const customId = top.needed('custom_id', top.text('custom_id'));
  if (!CUSTOM_ID.test(customId)) {
    throw new ConversionError('custom_id', `${ANTHROPIC} takes 1 to 64 letters, digits, _ and - only`);
  }
  const params = top.needed('params', top.object('params'));
  const notes = top.object('metadata');
  top.loseRest(policy, ANTHROPIC);
  turnsOf(params);
  const theirs = compact({
    model: modelOf(params, notes, policy, ANTHROPIC),
    max_tokens: params.number('max_tokens') ?? OUR_DEFAULTS.max_tokens,
    system: params.any('system'),
    messages: params.any('messages'),
    temperature: temperatureOf(params),
    top_p: params.number('top_p'),
    top_k: topKOf(params),
    stop_sequences: stopsOf(params),
    tools: params.list('tools'),
    tool_choice: params.any('tool_choice'),
    output_config: outputConfigOf(params, policy),
    metadata: compact({ user_id: notes?.text('user_id') }),
  });
  dropOurs(params, policy, ANTHROPIC);
  notes?.loseRest(policy, ANTHROPIC);
  return { custom_id: customId, params: theirs };
}

function temperatureOf(params: Reader): number {
  const temperature = params.number('temperature') ?? OUR_DEFAULTS.temperature;
  if (temperature <= 1) return temperature;
  throw new ConversionError(params.at('temperature'), `${ANTHROPIC} takes 0 to 1`);
}

// In our format 0 and -1 say that it is off, which Anthropic says by leaving it out.
function topKOf(params: Reader): number | undefined {
  const topK = params.number('top_k') ?? 0;
  return topK > 0 ? topK : undefined;
}

function outputConfigOf(params: Reader, policy: Policy): unknown {
  const format = params.object('response_format');
  const type = format?.text('type') ?? 'text';
  if (format === undefined || type === 'text') return undefined;
  const named = format.any('json_schema');
  if (isObject(named)) return { format: { type: 'json_schema', schema: named['schema'] } };
  policy.lose(format.path, `has no place in ${ANTHROPIC}`);
  return undefined;
}
