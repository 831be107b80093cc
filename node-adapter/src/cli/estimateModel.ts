// The arithmetic of an estimate: from tokens to seconds and dollars. Pure.

import { isObject } from './fields.js';
import { type Figures, MANAGED_USD, STAGE_MODELS } from './figures.js';
import type { Fields } from './lines.js';
import { OUR_DEFAULTS } from './ourRequests.js';
import { MODELS, type Model, promptTokens } from './tokens.js';

/** A low and a high value. */
export interface Range {
  readonly low: number;
  readonly high: number;
}

/** What one model is asked to do. */
export interface Load {
  requests: number;
  inputTokens: number;
  /** If every answer takes all of its max_tokens. */
  maxOutputTokens: number;
  longestOutput: number;
}

/** What it comes to. Seconds and dollars of the GPUs; `managedUsd` at a managed API's batch price. */
export interface Estimate {
  readonly outputTokens: Range;
  readonly seconds: Range;
  readonly usd: Range;
  readonly managedUsd: Range;
}

/** What an answer takes of its max_tokens at the low end. */
export const LOW_OUTPUT_SHARE = 0.25;

const HOUR_S = 3600;

export function emptyLoad(): Load {
  return { requests: 0, inputTokens: 0, maxOutputTokens: 0, longestOutput: 0 };
}

/** The model that the service would choose by default, by the request's hint, its stage or its model's name. */
export function modelFor(request: Fields, stage: string | undefined): Model | undefined {
  const metadata = request['metadata'];
  const hint = isObject(metadata) ? metadata['model_hint'] : undefined;
  if (typeof hint === 'string') return modelNamed(hint);
  const routed = stage === undefined ? undefined : STAGE_MODELS[stage];
  if (routed !== undefined) return routed;
  const params = request['params'];
  return modelNamed(isObject(params) ? String(params['model'] ?? '') : '');
}

function modelNamed(name: string): Model | undefined {
  const lower = name.toLowerCase();
  if (/haiku|mistral/.test(lower)) return 'mistral';
  return /claude|llama/.test(lower) ? 'llama-70b' : MODELS.find((model) => model === lower);
}

/** Adds a request to what its model is asked to do. */
export function addRequest(load: Load, request: Fields, model: Model): void {
  const params = isObject(request['params']) ? request['params'] : {};
  const maxTokens = params['max_tokens'];
  const output = typeof maxTokens === 'number' && maxTokens > 0 ? maxTokens : OUR_DEFAULTS.max_tokens;
  load.requests += 1;
  load.inputTokens += promptTokens(params, model);
  load.maxOutputTokens += output;
  load.longestOutput = Math.max(load.longestOutput, output);
}

/**
 * What a load comes to on workers of one kind. Low: answers of a quarter of their max_tokens, on as many workers as
 * there may be. High: answers of all of it, on one worker. Starting a worker and its idle time are not in it.
 */
export function estimate(load: Load, figures: Figures): Estimate {
  const managed = MANAGED_USD[figures.model];
  const outputTokens = { low: load.maxOutputTokens * LOW_OUTPUT_SHARE, high: load.maxOutputTokens };
  const busyS = both(
    outputTokens,
    (tokens) => load.inputTokens / figures.inputTokensPerS + tokens / figures.outputTokensPerS,
  );
  // However many workers there are, nothing ends before its longest answer.
  const tokenS = figures.slots / figures.outputTokensPerS;
  const longestS = both({ low: LOW_OUTPUT_SHARE, high: 1 }, (share) => share * load.longestOutput * tokenS);
  return {
    outputTokens,
    seconds: {
      low: Math.max(busyS.low / figures.maxWorkers, longestS.low),
      high: Math.max(busyS.high, longestS.high),
    },
    usd: both(busyS, (seconds) => (seconds * figures.usdPerHour) / HOUR_S),
    managedUsd: both(
      outputTokens,
      (tokens) => (load.inputTokens * managed.input + tokens * managed.output) / 1e6,
    ),
  };
}

function both({ low, high }: Range, of: (value: number) => number): Range {
  return { low: of(low), high: of(high) };
}
