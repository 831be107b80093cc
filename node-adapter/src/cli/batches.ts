// The commands on one batch, and the list of all: status, wait, results, cancel, delete, retry-failed, list.
import type { BatchStatus } from '../types.js';
import type { Command, Context } from './context.js';
import { EXIT } from './exit.js';
import { columns, SERVICE_OPTIONS } from './flags.js';
import { FORMATS } from './formats.js';
import { grouped, tally } from './progress.js';
import { exitOf, fetchResults, maxWaitMsOf, WAIT_OPTIONS, watch } from './watch.js';

/** A status for people. */
export function describe(status: BatchStatus): string {
  const { counts, usage } = status;
  const rows: [string, string | undefined | null][] = [
    ['batch', status.id],
    [
      'status',
      status.cancel_requested_at && status.ended_at === null ? 'canceling' : status.processing_status,
    ],
    ['requests', grouped(counts.total)],
    ['succeeded', grouped(counts.succeeded)],
    ['errored', grouped(counts.errored)],
    ['canceled', counts.canceled === undefined ? undefined : grouped(counts.canceled)],
    ['expired', counts.expired === undefined ? undefined : grouped(counts.expired)],
    ['pending', grouped(counts.pending)],
    ['stage', status.stage],
    ['priority', status.priority],
    ['models', status.models && modelsText(status.models)],
    ['tokens', usage && `${grouped(usage.input_tokens)} in, ${grouped(usage.output_tokens)} out`],
    ['created', status.created_at],
    ['ended', status.ended_at],
    ['expires', status.ended_at ? undefined : status.expires_at],
    ['retry of', status.retry_of],
  ];
  return columns(rows.flatMap(([name, value]) => (value ? [[name, value]] : [])));
}

function modelsText(models: Readonly<Record<string, number>>): string {
  return Object.entries(models)
    .map(([model, requests]) => `${model} ${grouped(requests)}`)
    .join(', ');
}

async function answerStatus({ terminal }: Context, status: BatchStatus): Promise<void> {
  await terminal.answer(status, describe(status));
}

export const status: Command = {
  name: 'status',
  about: 'Prints where a batch stands.',
  operands: ['ID'],
  options: SERVICE_OPTIONS,
  run: async (context) => {
    const { flags, signal } = context;
    await answerStatus(context, await context.client().getBatchStatus(flags.operand(), { signal }));
    return EXIT.ok;
  },
};

export const wait: Command = {
  name: 'wait',
  about: "Waits for a batch's end and prints its status. Exit code 1 if a request has no answer.",
  operands: ['ID'],
  options: WAIT_OPTIONS,
  run: async (context) => {
    const ended = await watch(context, context.client(), context.flags.operand());
    await answerStatus(context, ended);
    return exitOf(tally(ended).failed);
  },
};

export const results: Command = {
  name: 'results',
  about: `Writes the results of an ended batch, one JSON object a line, in the order of its requests.
A file appears under its name only when it is whole. Exit code 1 if a request has no answer.`,
  operands: ['ID'],
  options: {
    output: { short: 'o', value: 'FILE', about: 'write them there; stdout if absent or -' },
    partial: { about: 'before the end, write what is finished' },
    format: { value: 'FORMAT', about: 'ours (if absent), anthropic or openai' },
    ...SERVICE_OPTIONS,
  },
  run: async (context) => {
    const { flags, terminal } = context;
    const id = flags.operand();
    const path = flags.text('output');
    const format = flags.oneOf('format', FORMATS);
    const partial = flags.has('partial');
    const fetched = await fetchResults(context, context.client(), id, { path, format, partial });
    const toFile = path !== undefined && path !== '-';
    if (toFile && terminal.json) await terminal.answer({ id, output: path, ...fetched }, '');
    return exitOf(fetched.failed);
  },
};

export const cancel: Command = {
  name: 'cancel',
  about: 'Stops a batch: what has not finished is canceled, what has is kept. Prints its status.',
  operands: ['ID'],
  options: SERVICE_OPTIONS,
  run: async (context) => {
    const { flags, signal } = context;
    await answerStatus(context, await context.client().cancelBatch(flags.operand(), { signal }));
    return EXIT.ok;
  },
};

export const remove: Command = {
  name: 'delete',
  about: 'Deletes an ended batch with its requests and results.',
  operands: ['ID'],
  options: SERVICE_OPTIONS,
  run: async (context) => {
    const { flags, signal, terminal } = context;
    const deleted = await context.client().deleteBatch(flags.operand(), { signal });
    await terminal.answer(deleted, `${deleted.id} is deleted`);
    return EXIT.ok;
  },
};

export const retryFailed: Command = {
  name: 'retry-failed',
  about: `Makes a batch of an ended batch's requests that errored or expired, and prints its id.
The same command again gives the same batch.`,
  operands: ['ID'],
  options: {
    key: { value: 'TEXT', about: 'names this retry: another key, another retry' },
    watch: { short: 'w', about: 'wait for the end' },
    ...WAIT_OPTIONS,
  },
  run: async (context) => {
    const { flags, signal, terminal } = context;
    const client = context.client();
    const key = flags.text('key');
    const of = flags.operand();
    // Refused now, and not when the batch is made.
    maxWaitMsOf(flags);
    const made = await client.retryFailed(of, {
      signal,
      ...(key === undefined ? {} : { idempotencyKey: key }),
    });
    const answer = { id: made.id, retry_of: of };
    if (!flags.has('watch')) {
      await terminal.answer(answer, made.id);
      return EXIT.ok;
    }
    if (!terminal.json) await terminal.answer(answer, made.id);
    const ended = await watch(context, client, made.id);
    if (terminal.json) await terminal.answer({ ...answer, status: ended }, '');
    return exitOf(tally(ended).failed);
  },
};

export const list: Command = {
  name: 'list',
  about: 'Lists batches, newest first.',
  operands: [],
  options: {
    limit: { value: 'N', about: 'batches a page, 1 to 1000 (20 if absent)' },
    page: { value: 'TOKEN', about: 'the next page, as the page before says' },
    ...SERVICE_OPTIONS,
  },
  run: async (context) => {
    const { flags, signal, terminal } = context;
    const limit = flags.whole('limit', 1, 1000);
    const page = flags.text('page');
    const found = await context.client().listBatches({
      signal,
      ...(limit === undefined ? {} : { limit }),
      ...(page === undefined ? {} : { page }),
    });
    if (terminal.json || found.batches.length > 0) {
      await terminal.answer(
        found,
        table(found.batches, (text) => terminal.bold(text)),
      );
    } else {
      terminal.note('There are no batches.');
    }
    if (found.next_page !== null) terminal.note(`More with: llm-batch list --page ${found.next_page}`);
    return EXIT.ok;
  },
};

/** A row a batch under a heading. */
function table(batches: readonly BatchStatus[], bold: (text: string) => string): string {
  const head = ['ID', 'STATUS', 'STAGE', 'DONE', 'FAILED', 'CREATED'];
  const rows = batches.map((batch) => {
    const { done, failed, total } = tally(batch);
    const counts = [`${grouped(done)}/${grouped(total)}`, grouped(failed)];
    return [batch.id, batch.processing_status, batch.stage ?? '-', ...counts, batch.created_at];
  });
  const widths = head.map((cell, n) => Math.max(cell.length, ...rows.map((row) => row[n]?.length ?? 0)));
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, n) => cell.padEnd(widths[n] ?? 0))
      .join('  ')
      .trimEnd();
  return [bold(line(head)), ...rows.map(line)].join('\n');
}
