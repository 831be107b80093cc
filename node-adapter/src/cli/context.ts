// What every command is handed, and what one is.
import type { Readable } from 'node:stream';
import type { LlmBatchClient } from '../client.js';
import type { Flags, Syntax } from './flags.js';
import type { Terminal } from './terminal.js';

/** One call of a command. */
export interface Context {
  readonly flags: Flags;
  readonly terminal: Terminal;
  readonly stdin: Readable;
  /** Aborts when somebody ends the command. */
  readonly signal: AbortSignal;
  /** The service. Throws ConfigurationError where the URL or the key is missing. */
  client(): LlmBatchClient;
  nowMs(): number;
  /** What to do next, said to somebody who ends the command now. */
  advice: string;
}

/** A command: its syntax, and what it does. Gives the exit code. */
export interface Command extends Syntax {
  run(context: Context): Promise<number>;
}
