// The three formats of batch files: telling them apart, and one function for each way between them.
import { fromAnthropic, toAnthropic } from './anthropicRequests.js';
import { ConversionError, isObject, type Policy } from './fields.js';
import type { Fields } from './lines.js';
import { fromOpenAI, toOpenAI } from './openaiRequests.js';
import { fromAnthropicResult, fromOpenAIResult, toAnthropicResult, toOpenAIResult } from './resultLines.js';

export const FORMATS = ['ours', 'anthropic', 'openai'] as const;
export type Format = (typeof FORMATS)[number];
export type Kind = 'requests' | 'results';

/** What a file holds. */
export interface Shape {
  readonly format: Format;
  readonly kind: Kind;
}

type Convert = (line: Fields, policy: Policy) => Fields;

const TO_OURS: Readonly<Record<Kind, Readonly<Record<Format, Convert>>>> = {
  requests: { ours: checkedRequest, anthropic: fromAnthropic, openai: fromOpenAI },
  results: { ours: (line) => line, anthropic: fromAnthropicResult, openai: fromOpenAIResult },
};
const FROM_OURS: Readonly<Record<Kind, Readonly<Record<Format, Convert>>>> = {
  requests: { ours: (line) => line, anthropic: toAnthropic, openai: toOpenAI },
  results: { ours: (line) => line, anthropic: toAnthropicResult, openai: toOpenAIResult },
};

/** Fields of `params` that Anthropic's API has and ours has not. */
const ANTHROPIC_ONLY = ['metadata', 'output_config', 'output_format', 'thinking', 'service_tier'];

/**
 * What a line is, by its fields; undefined if it is nothing we know. Requests of ours and of Anthropic's look alike:
 * they are Anthropic's where the model is named `claude...`, or a parameter is theirs alone.
 */
export function shapeOf(line: Fields): Shape | undefined {
  if (isObject(line['body'])) return { format: 'openai', kind: 'requests' };
  if ('response' in line) return { format: 'openai', kind: 'results' };
  if (isObject(line['result'])) return { format: 'anthropic', kind: 'results' };
  if (typeof line['status'] === 'string') return { format: 'ours', kind: 'results' };
  const params = line['params'];
  if (!isObject(params)) return undefined;
  const claude = String(params['model']).startsWith('claude');
  const theirs = claude || ANTHROPIC_ONLY.some((name) => name in params);
  return { format: theirs ? 'anthropic' : 'ours', kind: 'requests' };
}

/** A line in our format. Throws ConversionError. */
export function toOurs(line: Fields, shape: Shape, policy: Policy): Fields {
  return TO_OURS[shape.kind][shape.format](line, policy);
}

/** A line of ours in another format. Throws ConversionError. */
export function fromOurs(line: Fields, shape: Shape, policy: Policy): Fields {
  return FROM_OURS[shape.kind][shape.format](line, policy);
}

const CUSTOM_ID_MAX_CHARS = 256;

// What is cheap to see here; the rest is the service's to judge.
function checkedRequest(line: Fields): Fields {
  const { custom_id, params } = line;
  if (typeof custom_id !== 'string') throw new ConversionError('custom_id', 'is missing or is not text');
  const chars = [...custom_id].length;
  if (chars < 1 || chars > CUSTOM_ID_MAX_CHARS) {
    throw new ConversionError('custom_id', `must have 1 to ${CUSTOM_ID_MAX_CHARS} characters`);
  }
  if (!isObject(params)) throw new ConversionError('params', 'is missing or is not an object');
  const { messages } = params;
  if (!Array.isArray(messages) || messages.length === 0) {
    throw new ConversionError('params.messages', 'must be a list of at least one message');
  }
  return line;
}
