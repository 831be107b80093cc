// Files of JSON lines, read as a stream: one line in memory at a time, and errors that say which.
import { createReadStream } from 'node:fs';
import { addAbortSignal, type Readable } from 'node:stream';
import { TextDecoder } from 'node:util';
import { InputError, UsageError } from './exit.js';

/** No line may be longer: what one call of the service takes. */
export const LINE_MAX_BYTES = 20_000_000;

export type Fields = Readonly<Record<string, unknown>>;

/** A line that is not empty; `number` counts all lines from 1. */
export interface Line {
  readonly number: number;
  readonly bytes: number;
  readonly value: Fields;
}

const NEWLINE = 0x0a;

/** The bytes of a file, or of a stream such as stdin. Throws UsageError where they can't be read. */
export async function* readBytes(
  source: string | Readable,
  signal: AbortSignal,
): AsyncGenerator<Buffer, void, void> {
  const stream = typeof source === 'string' ? createReadStream(source, { highWaterMark: 1 << 20 }) : source;
  addAbortSignal(signal, stream);
  try {
    for await (const chunk of stream) yield chunk as Buffer;
  } catch (error) {
    signal.throwIfAborted();
    const name = typeof source === 'string' ? source : 'stdin';
    throw new UsageError(`${name} can't be read: ${error instanceof Error ? error.message : String(error)}`);
  } finally {
    stream.destroy();
  }
}

/** The JSON objects of a file's lines; empty lines are passed over. Throws InputError. */
export async function* parseLines(
  name: string,
  bytes: AsyncIterable<Buffer>,
): AsyncGenerator<Line, void, void> {
  // A byte order mark is dropped by the decoder; bytes that are no text are an error.
  const decoder = new TextDecoder('utf-8', { fatal: true });
  let number = 0;
  for await (const line of splitLines(name, bytes)) {
    number += 1;
    const text = decoded(decoder, line, name, number);
    if (text.trim() !== '') yield { number, bytes: line.length, value: parsed(text, name, number) };
  }
}

async function* splitLines(name: string, bytes: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void, void> {
  let pieces: Buffer[] = [];
  let held = 0;
  let number = 1;
  for await (const chunk of bytes) {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      yield Buffer.concat([...pieces, chunk.subarray(start, end)]);
      pieces = [];
      held = 0;
      number += 1;
      start = end + 1;
    }
    pieces.push(chunk.subarray(start));
    held += chunk.length - start;
    if (held > LINE_MAX_BYTES) {
      throw new InputError(name, number, `the line is longer than ${LINE_MAX_BYTES} bytes`);
    }
  }
  if (held > 0) yield Buffer.concat(pieces);
}

function decoded(decoder: TextDecoder, line: Buffer, name: string, number: number): string {
  try {
    return decoder.decode(line);
  } catch {
    throw new InputError(name, number, 'the line is not UTF-8 text');
  }
}

function parsed(text: string, name: string, number: number): Fields {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new InputError(name, number, `the line is not JSON (${syntaxFault(error)})`);
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Fields;
  throw new InputError(name, number, 'the line is not a JSON object');
}

// Newer versions of Node quote the text in the message; a prompt has no place in an error.
function syntaxFault(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  const position = /position \d+/.exec(message)?.[0];
  return position ?? 'it ends too early or is malformed';
}
