// The table at the end: what each stage took and cost.
import type { BatchResult } from 'llm-batch-adapter';
import { gpuCostUsd, gpuSeconds, managedCostUsd, type Prices, type Work } from './prices.js';
import type { StageRun } from './stageRun.js';

/** The `percent`-th percentile by nearest rank, or undefined of nothing. */
export function percentile(values: readonly number[], percent: number): number | undefined {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil((percent / 100) * sorted.length) - 1)];
}

/** A stage's work by model. The batch's GPU time is divided by output tokens where it used several models. */
export function workOf(run: StageRun): Work[] {
  const byModel = new Map<string, { inputTokens: number; outputTokens: number }>();
  for (const { model, usage } of run.results) {
    const name = model ?? Object.keys(run.status.models ?? {})[0] ?? 'unknown';
    const sum = byModel.get(name) ?? { inputTokens: 0, outputTokens: 0 };
    sum.inputTokens += usage?.input_tokens ?? 0;
    sum.outputTokens += usage?.output_tokens ?? 0;
    byModel.set(name, sum);
  }
  const tokens = sumOf([...byModel.values()].map((sum) => sum.outputTokens)) ?? 0;
  const workerMs = run.status.gpu_ms ?? Number.NaN;
  return [...byModel].map(([model, sum]) => {
    const share = byModel.size === 1 ? 1 : sum.outputTokens / Math.max(1, tokens);
    return { model, workerMs: workerMs * share, ...sum };
  });
}

const COLUMNS = [
  'stage',
  'model',
  'requests',
  'ok/failed',
  'wall s',
  'p50 s',
  'p95 s',
  'tokens in',
  'tokens out',
  'GPU s',
  'cost $',
  'managed $',
];

/** The whole report as text. */
export function formatReport(
  runs: readonly StageRun[],
  prices: Prices,
  options: { simulated: boolean; leads: number },
): string {
  const rows = runs.map((run) => stageRow(run, prices));
  const label = options.simulated ? ' (simulated)' : '';
  return [
    '',
    `${options.leads} leads, ${runs.length} stages${label}`,
    ...formatTable([COLUMNS, ...rows, totalRow(runs, prices)]),
    '',
    ...notes(prices, options.simulated),
  ].join('\n');
}

function stageRow(run: StageRun, prices: Prices): string[] {
  const works = workOf(run);
  const latencies = run.results.flatMap((result) => result.latency_ms ?? []);
  return [
    run.stage,
    works.map((work) => work.model).join(' + '),
    ...countCells(run.results),
    seconds(run.wallMs / 1000),
    seconds(scaled(percentile(latencies, 50))),
    seconds(scaled(percentile(latencies, 95))),
    ...workCells(works, prices),
  ];
}

function totalRow(runs: readonly StageRun[], prices: Prices): string[] {
  const results = runs.flatMap((run) => run.results);
  const wallMs = sumOf(runs.map((run) => run.wallMs)) ?? 0;
  return [
    'total',
    '',
    ...countCells(results),
    seconds(wallMs / 1000),
    '',
    '',
    ...workCells(runs.flatMap(workOf), prices),
  ];
}

function countCells(results: readonly BatchResult[]): string[] {
  const ok = results.filter((result) => result.status === 'succeeded').length;
  return [String(results.length), `${ok}/${results.length - ok}`];
}

function workCells(works: readonly Work[], prices: Prices): string[] {
  return [
    count(sumOf(works.map((work) => work.inputTokens))),
    count(sumOf(works.map((work) => work.outputTokens))),
    seconds(sumOf(works.map((work) => gpuSeconds(work, prices)))),
    dollars(sumOf(works.map((work) => gpuCostUsd(work, prices)))),
    dollars(sumOf(works.map((work) => managedCostUsd(work, prices)))),
  ];
}

function notes(prices: Prices, simulated: boolean): string[] {
  const managed = Object.entries(prices.managed_usd_per_million_tokens).map(
    ([model, { name, input, output }]) =>
      `  ${model}: ${name}, $${input} in and $${output} out per million tokens`,
  );
  return [
    ...(simulated
      ? [
          'Simulated: a timing model stands in for the GPUs. Times, tokens and costs are simulated, not measured on one.',
        ]
      : []),
    'cost $: busy GPU seconds at the flex price; cold starts and idle time come on top.',
    'managed $: the same tokens at a managed API:',
    ...managed,
    `Prices as of ${prices.as_of}. ${prices.source}`,
  ];
}

function formatTable(rows: readonly (readonly string[])[]): string[] {
  const widths = COLUMNS.map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length)));
  const lines = rows.map((row) =>
    // Words to the left, numbers to the right.
    row
      .map((cell, column) =>
        column < 2 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
      )
      .join('  '),
  );
  lines.splice(1, 0, widths.map((width) => '-'.repeat(width)).join('  '));
  return lines;
}

/** The sum, or undefined as soon as one part is unknown. */
function sumOf(values: readonly (number | undefined)[]): number | undefined {
  return values.reduce<number | undefined>(
    (sum, value) =>
      sum === undefined || value === undefined || Number.isNaN(value) ? undefined : sum + value,
    0,
  );
}

function scaled(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : ms / 1000;
}

function seconds(value: number | undefined): string {
  return value === undefined ? 'n/a' : value.toFixed(2);
}

function dollars(value: number | undefined): string {
  return value === undefined ? 'n/a' : value.toFixed(4);
}

function count(value: number | undefined): string {
  return value === undefined ? 'n/a' : value.toLocaleString('en-US');
}
