// The command line: what a command takes, its help, and the values read by name.
import { type ParseArgsConfig, parseArgs } from 'node:util';
import { UsageError } from './exit.js';

/** One option of a command. `value` names what it takes; without it, it is a switch. */
export interface Option {
  readonly value?: string;
  readonly short?: string;
  readonly about: string;
}

export type Options = Readonly<Record<string, Option>>;

/** What a command takes. `operands` are the words after it, all of them required. */
export interface Syntax {
  readonly name: string;
  readonly about: string;
  readonly operands: readonly string[];
  readonly options: Options;
}

/** Options of every command that calls the service. */
export const SERVICE_OPTIONS: Options = {
  url: { value: 'URL', about: 'the batch endpoint, in place of $LOCAL_BATCH_URL' },
};

/** Options of every command. */
export const COMMON_OPTIONS: Options = {
  json: { about: 'print JSON on stdout' },
  quiet: { short: 'q', about: 'no progress and no notes on stderr' },
  help: { short: 'h', about: 'print this help' },
};

const SECONDS: Readonly<Record<string, number>> = { '': 1, s: 1, m: 60, h: 3600, d: 86_400 };

/** The values of one call. Each reader throws UsageError that names the option. */
export class Flags {
  readonly #values: Readonly<Record<string, unknown>>;
  readonly #operands: readonly string[];

  constructor(values: Readonly<Record<string, unknown>>, operands: readonly string[]) {
    this.#values = values;
    this.#operands = operands;
  }

  operand(index = 0): string {
    return this.#operands[index] ?? '';
  }

  has(name: string): boolean {
    return this.#values[name] === true;
  }

  text(name: string): string | undefined {
    const value = this.#values[name];
    if (value === '') throw new UsageError(`--${name} needs a value`);
    return typeof value === 'string' ? value : undefined;
  }

  oneOf<T extends string>(name: string, words: readonly T[]): T | undefined {
    const value = this.text(name);
    if (value === undefined) return undefined;
    const word = words.find((candidate) => candidate === value);
    if (word === undefined) throw new UsageError(`--${name} must be one of: ${words.join(', ')}`);
    return word;
  }

  whole(name: string, from: number, to: number): number | undefined {
    const value = this.text(name);
    if (value === undefined) return undefined;
    const number = Number(value);
    if (/^\d+$/.test(value) && number >= from && number <= to) return number;
    throw new UsageError(`--${name} must be a whole number from ${from} to ${to}`);
  }

  /** A duration such as 90, 90s, 15m, 2h or 7d, in seconds. */
  seconds(name: string, from: number, to: number): number | undefined {
    const value = this.text(name);
    if (value === undefined) return undefined;
    const [, digits = '', unit = ''] = /^(\d+)([smhd]?)$/.exec(value) ?? [];
    const seconds = Number(digits) * (SECONDS[unit] ?? 0);
    if (digits !== '' && seconds >= from && seconds <= to) return seconds;
    throw new UsageError(
      `--${name} must be a duration such as 90s, 15m, 2h or 7d, from ${from} to ${to} seconds`,
    );
  }
}

/** The values on a command line, as `syntax` allows them. Throws UsageError. */
export function readFlags(syntax: Syntax, args: readonly string[]): Flags {
  const options: NonNullable<ParseArgsConfig['options']> = {};
  for (const [name, { value, short }] of Object.entries({ ...syntax.options, ...COMMON_OPTIONS })) {
    options[name] = { type: value === undefined ? 'boolean' : 'string', ...(short ? { short } : {}) };
  }
  const { values, positionals } = parsed(syntax, args, options);
  const flags = new Flags(values, positionals);
  if (flags.has('help')) return flags;
  const missing = syntax.operands[positionals.length];
  if (missing !== undefined) throw new UsageError(`${syntax.name} needs ${missing}`);
  const extra = positionals[syntax.operands.length];
  if (extra !== undefined) throw new UsageError(`${syntax.name}: unexpected ${JSON.stringify(extra)}`);
  return flags;
}

function parsed(
  syntax: Syntax,
  args: readonly string[],
  options: NonNullable<ParseArgsConfig['options']>,
): { values: Readonly<Record<string, unknown>>; positionals: readonly string[] } {
  try {
    return parseArgs({ args: [...args], options, allowPositionals: true });
  } catch (error) {
    throw new UsageError(`${syntax.name}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** The help of one command. */
export function helpOf(syntax: Syntax): string {
  const usage = ['llm-batch', syntax.name, ...syntax.operands, '[options]'].join(' ');
  const options = { ...syntax.options, ...COMMON_OPTIONS };
  const rows = Object.entries(options).map(([name, option]) => [optionText(name, option), option.about]);
  return `usage: ${usage}\n\n${syntax.about}\n\n${columns(rows)}\n`;
}

function optionText(name: string, { value, short }: Option): string {
  return `${short ? `-${short}, ` : '    '}--${name}${value === undefined ? '' : ` ${value}`}`;
}

/** Rows as text, their first cells padded to one width. */
export function columns(rows: readonly (readonly string[])[]): string {
  const width = Math.max(0, ...rows.map(([first = '']) => first.length));
  return rows.map(([first = '', second = '']) => `  ${first.padEnd(width)}  ${second}`.trimEnd()).join('\n');
}
