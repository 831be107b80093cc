// `llm-batch submit`: a file of requests becomes a batch, once, however often the command is run.
import { createHash } from 'node:crypto';
import { isLlmBatchError } from '../errors.js';
import type { CreateOptions, Priority } from '../types.js';
import type { Command, Context } from './context.js';
import { EXIT, InputError, sentenceOf } from './exit.js';
import type { Flags } from './flags.js';
import { FORMATS } from './formats.js';
import { grouped, tally } from './progress.js';
import { type Checked, RequestFile } from './requestFile.js';
import { exitOf, fetchResults, maxWaitMsOf, WAIT_OPTIONS, watch } from './watch.js';

const PRIORITIES: readonly Priority[] = ['low', 'normal', 'high'];
const EXPIRY_S = { min: 10, max: 604_800 };

interface Wish {
  readonly stage: string | undefined;
  readonly priority: Priority | undefined;
  readonly expiresInS: number | undefined;
  readonly callbackUrl: string | undefined;
}

export const submit: Command = {
  name: 'submit',
  about: `Submits a file of requests, one JSON object a line, as a batch, and prints the batch's id. FILE may be - for stdin.
It takes our format, Anthropic's and OpenAI's, and checks the whole file before it sends anything.
The same command again gives the same batch, and goes on where an interrupted one stopped. For another batch of
the same file give another --key.`,
  operands: ['FILE'],
  options: {
    stage: {
      value: 'NAME',
      about: 'the stage that routes the requests; may be absent where each names a model',
    },
    priority: { value: 'LEVEL', about: 'low, normal or high' },
    'expires-in': { value: 'DURATION', about: 'give up what has not run by then: 10s to 7d' },
    'callback-url': { value: 'URL', about: "called, signed, at the batch's end" },
    key: { value: 'TEXT', about: "names this batch, in place of the file's content and the options" },
    format: { value: 'FORMAT', about: 'ours, anthropic or openai; found out if absent' },
    watch: { short: 'w', about: 'wait for the end' },
    output: {
      short: 'o',
      value: 'FILE',
      about: 'wait for the end and write the results there (- for stdout)',
    },
    ...WAIT_OPTIONS,
  },
  run: runSubmit,
};

async function runSubmit(context: Context): Promise<number> {
  const { flags, terminal } = context;
  const wish = wishOf(flags);
  const path = flags.text('output');
  const format = flags.oneOf('format', FORMATS);
  // Refused now, and not when the batch is made.
  maxWaitMsOf(flags);
  const client = context.client();
  const file = await RequestFile.open(flags.operand(), context.stdin, context.signal);
  let made: { id: string; key: string; checked: Checked };
  try {
    const checked = await file.check(format);
    const key = flags.text('key') ?? keyOf(wish, checked);
    terminal.note(`${file.name}: ${grouped(checked.requests)} requests in the format "${checked.format}"`);
    context.advice = 'The same command again goes on where this one stopped, and makes one batch.';
    const { id } = await createBatch(context, file, checked, wish, key);
    made = { id, key, checked };
  } finally {
    await file.close();
  }
  const { id, key, checked } = made;
  const { bytes, requests } = checked;
  const answer = { id, key, format: checked.format, requests, bytes };
  if (!flags.has('watch') && path === undefined) {
    await terminal.answer(answer, id);
    terminal.note(`Wait for its end with: llm-batch wait ${id}`);
    return EXIT.ok;
  }
  if (path === '-') terminal.note(id);
  else if (!terminal.json) await terminal.answer(answer, id);
  const status = await watch(context, client, id);
  const fetched = path === undefined ? {} : await fetchResults(context, client, id, { path });
  if (terminal.json && path !== '-')
    await terminal.answer({ ...answer, status, output: path, ...fetched }, id);
  return exitOf(tally(status).failed);
}

function wishOf(flags: Flags): Wish {
  return {
    stage: flags.text('stage'),
    priority: flags.oneOf('priority', PRIORITIES),
    expiresInS: flags.seconds('expires-in', EXPIRY_S.min, EXPIRY_S.max),
    callbackUrl: flags.text('callback-url'),
  };
}

/** The same for the same file and options: so the same command makes one batch. */
export function keyOf(wish: Wish, { format, digest }: Pick<Checked, 'format' | 'digest'>): string {
  const { stage = null, priority = null, expiresInS = null, callbackUrl = null } = wish;
  const parts = JSON.stringify([stage, priority, expiresInS, callbackUrl, format, digest]);
  return `file-${createHash('sha256').update(parts).digest('hex')}`;
}

async function createBatch(
  context: Context,
  file: RequestFile,
  checked: Checked,
  wish: Wish,
  key: string,
): Promise<{ id: string }> {
  const { terminal, signal } = context;
  const { stage, ...given } = wish;
  const options: CreateOptions = {
    ...present(given),
    idempotencyKey: key,
    uploadKey: key,
    signal,
    onUpload: ({ requests }) => {
      const share = Math.floor((100 * requests) / checked.requests);
      terminal.progress(
        `Uploaded ${grouped(requests)} of ${grouped(checked.requests)} requests (${share} %)`,
      );
    },
  };
  try {
    return await context.client().createBatch(stage, file.requests(), options);
  } catch (error) {
    throw await named(error, file);
  }
}

function present({ priority, expiresInS, callbackUrl }: Omit<Wish, 'stage'>): CreateOptions {
  return {
    ...(priority === undefined ? {} : { priority }),
    ...(expiresInS === undefined ? {} : { expiresInS }),
    ...(callbackUrl === undefined ? {} : { callbackUrl }),
  };
}

/** An error that names a request by its index, as one that names its line. */
async function named(error: unknown, file: RequestFile): Promise<unknown> {
  const param = isLlmBatchError(error) ? error.param : undefined;
  const [, index] = /^requests\[(\d+)\]/.exec(param ?? '') ?? [];
  if (index === undefined || !(error instanceof Error)) return error;
  const line = await file.lineOf(Number(index));
  if (line === undefined) return error;
  return new InputError(file.name, line, sentenceOf(error));
}
