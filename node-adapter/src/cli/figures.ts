// What `estimate` reckons with: one full worker of each kind, and prices. Data.
//
// Reckoned by the arithmetic of docs/cost.md from the files in runpod/ (prices of August 2026, data sheets of GPUs);
// nothing was measured on a GPU. A test compares them with those files.
import type { Model } from './tokens.js';

/** One way to run a model, named as `./build.sh deploy --variant` names it. */
export interface Figures {
  readonly model: Model;
  readonly worker: string;
  readonly maxWorkers: number;
  /** Of a busy worker, all its GPUs together. */
  readonly usdPerHour: number;
  /** Requests at once. */
  readonly slots: number;
  /** Prompt tokens a second, if it did nothing else. */
  readonly inputTokensPerS: number;
  /** Generated tokens a second over all slots, if it did nothing else. */
  readonly outputTokensPerS: number;
}

export const VARIANTS: Readonly<Record<string, Figures>> = {
  mistral: {
    model: 'mistral',
    worker: '1 x RTX 4090, FP16',
    maxWorkers: 10,
    usdPerHour: 1.116,
    slots: 49,
    inputTokensPerS: 5690,
    outputTokensPerS: 1914,
  },
  'mistral=fp8': {
    model: 'mistral',
    worker: '1 x RTX 4090, FP8',
    maxWorkers: 10,
    usdPerHour: 1.116,
    slots: 64,
    inputTokensPerS: 11379,
    outputTokensPerS: 3496,
  },
  'mistral=h100': {
    model: 'mistral',
    worker: '1 x H100 80GB, FP8',
    maxWorkers: 3,
    usdPerHour: 4.176,
    slots: 48,
    inputTokensPerS: 68241,
    outputTokensPerS: 9840,
  },
  llama: {
    model: 'llama-70b',
    worker: '2 x A100-80GB, FP16',
    maxWorkers: 3,
    usdPerHour: 5.472,
    slots: 18,
    inputTokensPerS: 2210,
    outputTokensPerS: 378,
  },
  'llama=awq': {
    model: 'llama-70b',
    worker: '1 x A100-80GB, AWQ',
    maxWorkers: 4,
    usdPerHour: 2.736,
    slots: 70,
    inputTokensPerS: 1105,
    outputTokensPerS: 1873,
  },
  'llama=fp8': {
    model: 'llama-70b',
    worker: '1 x H200, FP8',
    maxWorkers: 3,
    usdPerHour: 5.58,
    slots: 46,
    inputTokensPerS: 7008,
    outputTokensPerS: 2020,
  },
  'llama=h100': {
    model: 'llama-70b',
    worker: '2 x H100 80GB, FP16',
    maxWorkers: 3,
    usdPerHour: 8.352,
    slots: 18,
    inputTokensPerS: 7004,
    outputTokensPerS: 622,
  },
  'llama=h100-fp8': {
    model: 'llama-70b',
    worker: '2 x H100 80GB, FP8',
    maxWorkers: 3,
    usdPerHour: 8.352,
    slots: 64,
    inputTokensPerS: 14016,
    outputTokensPerS: 3720,
  },
  'llama=a40': {
    model: 'llama-70b',
    worker: '4 x A40, FP16',
    maxWorkers: 3,
    usdPerHour: 4.896,
    slots: 48,
    inputTokensPerS: 2125,
    outputTokensPerS: 656,
  },
};

/** The variant that runs where none was chosen. */
export const DEFAULT_VARIANT: Readonly<Record<Model, string>> = { mistral: 'mistral', 'llama-70b': 'llama' };

/** A managed API's price at batch rates, in dollars for a million tokens. */
export const MANAGED_USD: Readonly<Record<Model, { readonly input: number; readonly output: number }>> = {
  mistral: { input: 0.5, output: 2.5 },
  'llama-70b': { input: 1.5, output: 7.5 },
};

/** The model of the stages that the service routes without further settings. */
export const STAGE_MODELS: Readonly<Record<string, Model>> = {
  sales_intel: 'llama-70b',
  polish: 'llama-70b',
  subject: 'mistral',
  email: 'mistral',
};
