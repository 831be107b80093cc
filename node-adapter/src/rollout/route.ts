// The rule of the rollout: which side a lead goes to.
//
// A key lies at a fixed point between 0 and 100, by its hash. It goes to the local side where that point is below the
// percentage. So the same lead always goes the same way, and a higher percentage only moves leads from the remote side
// to the local one.
import { createHash } from 'node:crypto';
import { ConfigurationError } from '../errors.js';

/** `local`: this service. `remote`: the managed one. */
export type Side = 'local' | 'remote';

/** A percentage, or a function that is asked at each call: what it gives then takes effect with that call. */
export type Percentage = number | (() => number);

/** What `route` decides by. */
export interface RouteOptions {
  /** How many of a hundred keys go to the local side: 0 to 100, fractions too. Default: what the environment says. */
  localPercent?: Percentage;
  /** What sticks together: a lead's id. */
  key: string;
}

/** The side that a key goes to. Throws ConfigurationError if the percentage is none. */
export function route({ localPercent = localPercentOfEnvironment, key }: RouteOptions): Side {
  return sideOf(key, percentOf(localPercent, 'localPercent'));
}

/** The side that a key goes to at a percentage that was checked. */
export function sideOf(key: string, localPercent: number): Side {
  return pointOf(key) < localPercent ? 'local' : 'remote';
}

const HASH_BYTES = 6;

/** Where a key lies, from 0 up to below 100: always at the same point. */
export function pointOf(key: string): number {
  const digest = createHash('sha256').update(key, 'utf8').digest();
  return (digest.readUIntBE(0, HASH_BYTES) / 2 ** (8 * HASH_BYTES)) * 100;
}

/** The percentage as it is now. Throws ConfigurationError that names `param` if it is not from 0 to 100. */
export function percentOf(percentage: Percentage, param: string): number {
  const percent = typeof percentage === 'function' ? percentage() : percentage;
  if (typeof percent === 'number' && percent >= 0 && percent <= 100) return percent;
  throw new ConfigurationError(`${param} must be a number from 0 to 100, not ${String(percent)}`, param);
}

const FLAG_VARIABLE = 'USE_LOCAL_LLM';
const PERCENT_VARIABLE = 'LOCAL_LLM_PERCENT';
const URL_VARIABLE = 'LOCAL_BATCH_URL';
const ON = new Set(['1', 'true', 'yes', 'on']);

/** Whether `USE_LOCAL_LLM` is on: `1`, `true`, `yes` or `on`. Anything else is off, so that no typo turns it on. */
export function isFlagOn(): boolean {
  return ON.has(read(FLAG_VARIABLE).toLowerCase());
}

/** Whether the environment lets anything go to the local side: the flag is on and `LOCAL_BATCH_URL` is set. */
export function isLocalOn(): boolean {
  return isFlagOn() && read(URL_VARIABLE) !== '';
}

/** `LOCAL_LLM_PERCENT`, or 100 where it is unset. Throws ConfigurationError if it is no percentage. */
export function percentOfEnvironment(): number {
  const percent = read(PERCENT_VARIABLE);
  return percent === '' ? 100 : percentOf(Number(percent), PERCENT_VARIABLE);
}

/** The local side's share as the environment has it at this moment: 0 where it lets nothing go there. */
export function localPercentOfEnvironment(): number {
  return isLocalOn() ? percentOfEnvironment() : 0;
}

function read(variable: string): string {
  return process.env[variable]?.trim() ?? '';
}
