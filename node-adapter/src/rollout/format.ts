// A comparison as a table: Markdown for a page, plain columns for a terminal.
import type { ComparisonReport, Percentiles, Sample, SampleAnswer, SideReport } from './comparison.js';

/** How to show a report. */
export interface FormatOptions {
  /** `markdown` or `plain`. Default `plain`. */
  style?: 'markdown' | 'plain';
  /** Adds the samples, with their prompts and answers. Default false. */
  samples?: boolean;
}

/** The report as text. */
export function formatComparison(report: ComparisonReport, options: FormatOptions = {}): string {
  const rows = [['', 'local', 'remote'], ...ROWS.map(([name, cell]) => rowOf(name, cell, report))];
  const lines = options.style === 'markdown' ? markdown(rows) : plain(rows);
  lines.push('', ...notesOf(report));
  if (options.samples === true) {
    for (const sample of report.samples) lines.push(...sampleLines(sample));
  }
  return lines.join('\n');
}

type Cell = (side: SideReport) => string;

function perRequest(total: (side: SideReport) => number | null, digits: number, per = 1): Cell {
  return (side) => {
    const value = total(side);
    return value === null || side.requests === 0 ? 'n/a' : ((value / side.requests) * per).toFixed(digits);
  };
}

function seconds(of: (side: SideReport) => Percentiles | null, name: 'p50' | 'p95'): Cell {
  return (side) => {
    const percentiles = of(side);
    return percentiles === null ? 'n/a' : (percentiles[name] / 1000).toFixed(2);
  };
}

const ROWS: readonly (readonly [string, Cell])[] = [
  ['batches', (side) => String(side.batches)],
  ['requests', (side) => String(side.requests)],
  ['succeeded', (side) => String(side.succeeded)],
  ['error rate', ({ errorRate }) => (errorRate === null ? 'n/a' : `${(errorRate * 100).toFixed(2)} %`)],
  ['batch p50, s', seconds((side) => side.turnaroundMs, 'p50')],
  ['batch p95, s', seconds((side) => side.turnaroundMs, 'p95')],
  ['answer p50, s', seconds((side) => side.latencyMs, 'p50')],
  ['answer p95, s', seconds((side) => side.latencyMs, 'p95')],
  ['tokens in a request', perRequest((side) => side.inputTokens, 0)],
  ['tokens out a request', perRequest((side) => side.outputTokens, 0)],
  ['cost, $', ({ costUsd }) => (costUsd === null ? 'n/a' : costUsd.toFixed(4))],
  ['cost of 1,000 requests, $', perRequest((side) => side.costUsd, 2, 1000)],
];

function rowOf(name: string, cell: Cell, { local, remote }: ComparisonReport): string[] {
  return [name, cell(local), cell(remote)];
}

function markdown(rows: readonly (readonly string[])[]): string[] {
  const lines = rows.map(([name, ...cells]) => `|${name && ` ${name}`} | ${cells.join(' | ')} |`);
  lines.splice(1, 0, '|---|---:|---:|');
  return lines;
}

function plain(rows: readonly (readonly string[])[]): string[] {
  const widths = [0, 1, 2].map((column) => Math.max(...rows.map((row) => (row[column] ?? '').length)));
  return rows.map((row) => {
    const [name = '', ...cells] = row.map((cell, column) =>
      column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
    );
    return [name, ...cells].join('  ').trimEnd();
  });
}

function notesOf({ local, remote, pairs, shadowsFailed }: ComparisonReport): string[] {
  const { both, localOnly, remoteOnly, neither } = pairs;
  const paired = both + localOnly + remoteOnly + neither;
  const lines = [
    `Ran on both sides: ${paired} requests. Answered by both ${both}, local only ${localOnly}, remote only ${remoteOnly}, neither ${neither}.`,
  ];
  if (shadowsFailed > 0) lines.push(`Copies that could not be made: ${shadowsFailed}.`);
  for (const [name, { errors }] of [
    ['local', local],
    ['remote', remote],
  ] as const) {
    const kinds = Object.entries(errors).map(([type, times]) => `${type} ${times}`);
    if (kinds.length > 0) lines.push(`Errors, ${name}: ${kinds.join(', ')}.`);
  }
  return lines;
}

function sampleLines({ customId, params, local, remote }: Sample): string[] {
  return [
    ...['', `### ${customId}`],
    ...['', 'Request:', ...fenced(JSON.stringify(params, null, 2))],
    ...['', 'Local:', ...fenced(answerText(local))],
    ...['', 'Remote:', ...fenced(answerText(remote))],
  ];
}

function answerText({ status, text, error }: SampleAnswer): string {
  return text ?? `${status}: ${error?.message ?? 'no reason given'}`;
}

// A fence longer than any in the text.
function fenced(text: string): string[] {
  const runs = text.match(/`{3,}/g) ?? [];
  const fence = '`'.repeat(Math.max(3, ...runs.map((run) => run.length + 1)));
  return [fence, text, fence];
}
