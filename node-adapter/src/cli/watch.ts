// Waiting for a batch's end with progress, and fetching its results: shared by submit, wait, retry-failed and results.
import type { LlmBatchClient } from '../client.js';
import type { BatchResult, BatchStatus } from '../types.js';
import type { Context } from './context.js';
import { EXIT } from './exit.js';
import { STRICT } from './fields.js';
import { type Flags, type Options, SERVICE_OPTIONS } from './flags.js';
import { type Format, fromOurs } from './formats.js';
import { writeLines } from './output.js';
import { grouped, progressBar, progressLine, type Start, tally } from './progress.js';
import { converted } from './requestFile.js';

const WEEK_S = 7 * 86_400;

export const WAIT_OPTIONS: Options = {
  timeout: { value: 'DURATION', about: 'give up waiting after 90s, 15m, 2h ...; the batch goes on' },
  ...SERVICE_OPTIONS,
};

/** The --timeout in milliseconds. Throws UsageError. */
export function maxWaitMsOf(flags: Flags): number {
  return 1000 * (flags.seconds('timeout', 1, WEEK_S) ?? Number.POSITIVE_INFINITY);
}

/** Waits for the end and shows how far it is. Throws WaitTimeoutError after --timeout. */
export async function watch(context: Context, client: LlmBatchClient, id: string): Promise<BatchStatus> {
  const { terminal, flags, signal } = context;
  const maxWaitMs = maxWaitMsOf(flags);
  context.advice = `The batch goes on. Wait for it again with: llm-batch wait ${id}`;
  let start: Start | undefined;
  const onProgress = (status: BatchStatus) => {
    const nowMs = context.nowMs();
    start ??= { atMs: nowMs, done: tally(status).done };
    terminal.progress(
      terminal.redraws ? progressBar(status, start, nowMs, terminal.columns) : progressLine(status),
    );
  };
  const status = await client.waitForBatch(id, maxWaitMs, { signal, onProgress });
  const { failed, total } = tally(status);
  terminal.note(
    failed === 0
      ? terminal.colour('green', `All ${grouped(total)} requests succeeded.`, 'stderr')
      : terminal.colour('red', `${grouped(failed)} of ${grouped(total)} requests have no answer.`, 'stderr'),
  );
  return status;
}

/** The exit code that an ended batch stands for. */
export function exitOf(failed: number): number {
  return failed === 0 ? EXIT.ok : EXIT.failures;
}

/** How many results were written, and how many of them are no answers. */
export interface Fetched {
  readonly results: number;
  readonly failed: number;
}

/** Streams a batch's results to a file or to stdout. */
export async function fetchResults(
  context: Context,
  client: LlmBatchClient,
  id: string,
  options: {
    readonly path: string | undefined;
    readonly format?: Format | undefined;
    readonly partial?: boolean;
  },
): Promise<Fetched> {
  const { terminal, signal } = context;
  const { path, format = 'ours', partial = false } = options;
  context.advice = `Fetch the results with: llm-batch results ${id}`;
  let results = 0;
  let failed = 0;
  await writeLines(path, terminal.stdout, async (writer) => {
    for await (const result of client.streamBatchResults(id, { signal, partial })) {
      await writer.line(JSON.stringify(inFormat(result, format, results + 1, id)));
      results += 1;
      if (result.status !== 'succeeded') failed += 1;
      if (results % 1000 === 0 && path !== undefined) terminal.progress(`${grouped(results)} results`);
    }
  });
  const failures = failed > 0 ? `, ${grouped(failed)} of them without an answer` : '';
  if (path !== undefined && path !== '-') {
    terminal.note(`${grouped(results)} results written to ${path}${failures}`);
  }
  return { results, failed };
}

function inFormat(result: BatchResult, format: Format, number: number, id: string): unknown {
  if (format === 'ours') return result;
  const line = { ...result };
  return converted(id, number, () => fromOurs(line, { format, kind: 'results' }, STRICT));
}
