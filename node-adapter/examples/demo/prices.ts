// What the work costs: GPU seconds at RunPod's price, and the same tokens at a managed API's price.
import { readFile } from 'node:fs/promises';

/** The price file: data that goes out of date, so it says of when it is. */
export interface Prices {
  readonly as_of: string;
  readonly source: string;
  /** US dollars per second and GPU: flex workers scale to zero, active ones are always on. */
  readonly gpu_usd_per_second: Readonly<Record<string, { readonly flex: number; readonly active: number }>>;
  /** The GPUs of one worker of each model. */
  readonly models: Readonly<Record<string, { readonly gpu: string; readonly count: number }>>;
  /** US dollars per million tokens of a managed model of about that size. */
  readonly managed_usd_per_million_tokens: Readonly<
    Record<string, { readonly name: string; readonly input: number; readonly output: number }>
  >;
}

/** The work of one model. */
export interface Work {
  readonly model: string;
  /** Milliseconds of workers, each of which may hold several GPUs. */
  readonly workerMs: number;
  readonly inputTokens: number;
  readonly outputTokens: number;
}

export async function readPrices(path: string): Promise<Prices> {
  return JSON.parse(await readFile(path, 'utf8'));
}

/** GPU seconds, or undefined if the model's GPUs are not in the file. */
export function gpuSeconds(work: Work, prices: Prices): number | undefined {
  const worker = prices.models[work.model];
  return worker && (work.workerMs / 1000) * worker.count;
}

/** Dollars for the busy GPU seconds at the flex price, or undefined without a price. */
export function gpuCostUsd(work: Work, prices: Prices): number | undefined {
  const seconds = gpuSeconds(work, prices);
  const price = prices.gpu_usd_per_second[prices.models[work.model]?.gpu ?? ''];
  return seconds === undefined || price === undefined ? undefined : seconds * price.flex;
}

/** Dollars for the same tokens at a managed API, or undefined without a price. */
export function managedCostUsd(work: Work, prices: Prices): number | undefined {
  const price = prices.managed_usd_per_million_tokens[work.model];
  return price && (work.inputTokens * price.input + work.outputTokens * price.output) / 1e6;
}
