// The command line from its first word to its exit code.
import type { Readable } from 'node:stream';
import { LlmBatchClient } from '../client.js';
import { ConfigurationError } from '../errors.js';
import type { ClientOptions } from '../types.js';
import { cancel, list, remove, results, retryFailed, status, wait } from './batches.js';
import type { Command, Context } from './context.js';
import { convert } from './convert.js';
import { estimate } from './estimate.js';
import { EXIT, errorFields, exitCodeOf, messageOf, Stopped, UsageError } from './exit.js';
import { columns, type Flags, helpOf, readFlags } from './flags.js';
import { writeText } from './output.js';
import { health, metrics } from './service.js';
import { submit } from './submit.js';
import { type Screen, Terminal } from './terminal.js';

export const COMMANDS: readonly Command[] = [
  submit,
  status,
  wait,
  results,
  cancel,
  remove,
  retryFailed,
  list,
  health,
  metrics,
  convert,
  estimate,
];

/** All that a call touches. */
export interface World {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly stdin: Readable;
  readonly stdout: Screen;
  readonly stderr: Screen;
  readonly signal: AbortSignal;
  readonly version: string;
  /** In place of the client's own, for tests that must not wait. */
  readonly clientOptions?: Partial<ClientOptions>;
}

const OVERVIEW = `usage: llm-batch COMMAND [options]

${columns(COMMANDS.map(({ name, operands, about }) => [[name, ...operands].join(' '), firstSentence(about)]))}

  llm-batch COMMAND --help says more of a command; --version prints the version.

The batch endpoint is read from $LOCAL_BATCH_URL (or --url), the API key from $RUNPOD_API_KEY.
Exit codes: 0 done; 1 a request of the batch has no answer; 2 the command or its input is wrong; 3 the service or
the network failed; 4 no such batch; 5 --timeout was reached; 130 and 143 interrupted.
`;

function firstSentence(about: string): string {
  return about.replaceAll('\n', ' ').split(/\.(?: |$)/)[0] ?? '';
}

/** Runs one command line; gives its exit code. Never throws. */
export async function run(argv: readonly string[], world: World): Promise<number> {
  const [name, ...args] = argv;
  try {
    if (name === '--version') return await said(world, `${world.version}\n`);
    if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
      const command = COMMANDS.find((candidate) => candidate.name === args[0]);
      if (name === undefined) throw new UsageError(`a command is needed\n\n${OVERVIEW}`.trimEnd());
      return await said(world, command === undefined ? OVERVIEW : helpOf(command));
    }
    const command = COMMANDS.find((candidate) => candidate.name === name);
    if (command === undefined) throw new UsageError(`unknown command ${name}; llm-batch --help lists them`);
    return await runCommand(command, args, world);
  } catch (error) {
    return failed(error, world, args.includes('--json'), '');
  }
}

async function said({ stdout }: World, text: string): Promise<number> {
  await writeText(stdout, text);
  return EXIT.ok;
}

async function runCommand(command: Command, args: readonly string[], world: World): Promise<number> {
  const flags = readFlags(command, args);
  if (flags.has('help')) return said(world, helpOf(command));
  const json = flags.has('json');
  const terminal = new Terminal(world.stdout, world.stderr, world.env, { json, quiet: flags.has('quiet') });
  const context: Context = {
    flags,
    terminal,
    stdin: world.stdin,
    signal: world.signal,
    client: () => clientOf(flags, world),
    nowMs: () => world.clientOptions?.clock?.now() ?? Date.now(),
    advice: '',
  };
  try {
    return await command.run(context);
  } catch (error) {
    terminal.settle();
    return failed(error, world, json, context.advice);
  }
}

function clientOf(flags: Flags, { env, clientOptions }: World): LlmBatchClient {
  const baseUrl = flags.text('url') ?? env['LOCAL_BATCH_URL'] ?? '';
  const apiKey = env['RUNPOD_API_KEY'] ?? '';
  if (baseUrl === '')
    throw new ConfigurationError('Set LOCAL_BATCH_URL to the batch endpoint, or give --url');
  if (apiKey === '') throw new ConfigurationError('Set RUNPOD_API_KEY to a RunPod API key');
  return new LlmBatchClient({ ...clientOptions, baseUrl, apiKey });
}

async function failed(error: unknown, world: World, json: boolean, advice: string): Promise<number> {
  const exitCode = exitCodeOf(error);
  // Nobody reads what is written now.
  if (exitCode === EXIT.brokenPipe) return exitCode;
  const lines = [`llm-batch: ${messageOf(error)}`];
  if (advice !== '' && (error instanceof Stopped || exitCode === EXIT.service || exitCode === EXIT.timeout)) {
    lines.push(advice);
  }
  world.stderr.write(`${lines.join('\n')}\n`);
  if (json) await said(world, `${JSON.stringify({ error: errorFields(error) })}\n`).catch(() => undefined);
  return exitCode;
}
