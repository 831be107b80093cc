// `llm-batch estimate`: tokens, time and cost of a file, before anything runs. Calls nothing.
import type { Command, Context } from './context.js';
import {
  addRequest,
  emptyLoad,
  estimate as estimateOf,
  type Load,
  modelFor,
  type Range,
} from './estimateModel.js';
import { EXIT, InputError, UsageError } from './exit.js';
import { DEFAULT_VARIANT, type Figures, VARIANTS } from './figures.js';
import { columns } from './flags.js';
import { FORMATS } from './formats.js';
import { clockText, grouped } from './progress.js';
import { RequestFile } from './requestFile.js';
import { MODELS, type Model } from './tokens.js';

const REQUESTS_MAX = 100_000;
const BYTES_MAX = 256_000_000;

export const estimate: Command = {
  name: 'estimate',
  about: `Says what a file of requests would take: tokens, time and cost. Nothing is sent. FILE may be - for stdin.
Tokens are guessed from the characters. The low end has answers of a quarter of their max_tokens on all workers, the
high end answers of all of it on one. The figures are arithmetic; start-up and idle time are not in them.`,
  operands: ['FILE'],
  options: {
    stage: {
      value: 'NAME',
      about: 'the stage that routes the requests; may be absent where each names a model',
    },
    variant: { value: 'NAME', about: `how a model is run: ${Object.keys(VARIANTS).join(', ')}` },
    model: { value: 'NAME', about: `for all requests: ${MODELS.join(' or ')}` },
    format: { value: 'FORMAT', about: 'ours, anthropic or openai; found out if absent' },
  },
  run: runEstimate,
};

async function runEstimate(context: Context): Promise<number> {
  const { flags, terminal } = context;
  const stage = flags.text('stage');
  const model = flags.oneOf('model', MODELS);
  const chosen = flags.oneOf('variant', Object.keys(VARIANTS));
  const format = flags.oneOf('format', FORMATS);
  const file = await RequestFile.open(flags.operand(), context.stdin, context.signal);
  try {
    const loads = new Map<Model, Load>();
    const checked = await file.check(format, (request, line) => {
      const served = model ?? modelFor(request, stage);
      if (served === undefined) {
        throw new InputError(
          file.name,
          line,
          'which model serves it is unknown here: say --model, or --stage',
        );
      }
      const load = loads.get(served) ?? emptyLoad();
      addRequest(load, request, served);
      loads.set(served, load);
    });
    const estimates = [...loads].map(([served, load]) => {
      const variant = variantFor(served, chosen, loads.size);
      return { model: served, variant, ...load, ...estimateOf(load, figuresOf(variant)) };
    });
    const { requests, bytes } = checked;
    const answer = { requests, bytes, format: checked.format, models: estimates };
    const blocks = estimates.map((one) => columns(rowsOf(one)));
    await terminal.answer(answer, blocks.join('\n\n'));
    warnOfLimits(context, requests, bytes);
  } finally {
    await file.close();
  }
  return EXIT.ok;
}

function variantFor(model: Model, chosen: string | undefined, models: number): string {
  if (chosen === undefined) return DEFAULT_VARIANT[model];
  if (figuresOf(chosen).model === model) return chosen;
  if (models > 1) return DEFAULT_VARIANT[model];
  throw new UsageError(`--variant ${chosen} does not run ${model}, which serves these requests`);
}

function figuresOf(variant: string): Figures {
  const figures = VARIANTS[variant];
  if (figures === undefined) throw new UsageError(`there is no variant ${variant}`);
  return figures;
}

function rowsOf(one: { model: Model; variant: string } & Load & ReturnType<typeof estimateOf>): string[][] {
  const { worker, maxWorkers } = figuresOf(one.variant);
  return [
    ['model', `${one.model} on 1 to ${maxWorkers} workers of ${worker}`],
    ['requests', grouped(one.requests)],
    ['tokens in', `about ${grouped(rounded(one.inputTokens))}`],
    ['tokens out', between(one.outputTokens, grouped)],
    ['time', between(one.seconds, clockText)],
    ['GPU cost', between(one.usd, dollars)],
    ['managed API', between(one.managedUsd, dollars)],
  ];
}

// A guess has no more digits.
function rounded(value: number): number {
  return Number(value.toPrecision(2));
}

function between({ low, high }: Range, shown: (value: number) => string): string {
  return shown(low) === shown(high) ? shown(low) : `${shown(low)} to ${shown(high)}`;
}

/** Dollars, with the digits that matter where they are few. */
export function dollars(usd: number): string {
  return `$${usd >= 1 || usd === 0 ? grouped2(usd) : usd.toPrecision(2)}`;
}

function grouped2(usd: number): string {
  return usd.toLocaleString('en-US', { minimumFractionDigits: 2, maximumFractionDigits: 2 });
}

function warnOfLimits({ terminal }: Context, requests: number, bytes: number): void {
  if (requests > REQUESTS_MAX || bytes > BYTES_MAX) {
    terminal.warn(
      `A service that was not configured for more takes ${grouped(REQUESTS_MAX)} requests or ${grouped(BYTES_MAX)} bytes a batch.`,
    );
  }
}
