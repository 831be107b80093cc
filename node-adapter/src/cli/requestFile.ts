// A file of requests, read twice: once to check it wholly before anything is sent, once to send it.
import { Buffer } from 'node:buffer';
import { createHash, type Hash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { PART_MAX_BYTES } from '../parts.js';
import type { BatchRequest } from '../types.js';
import { InputError, UsageError } from './exit.js';
import { ConversionError, type Policy, STRICT } from './fields.js';
import { type Format, type Shape, shapeOf, toOurs } from './formats.js';
import { type Fields, parseLines, readBytes } from './lines.js';

// Converted or not, a request of a shorter line fits into a part.
const LARGE_BYTES = PART_MAX_BYTES / 2;
// What stands around the only request of a part.
const FRAME_BYTES = 16;

/** What the first reading found. `digest` is that of the file's bytes, as hexadecimal digits. */
export interface Checked {
  readonly format: Format;
  readonly requests: number;
  readonly bytes: number;
  readonly digest: string;
}

/** A file of requests; `-` is stdin, which is kept in a temporary file until `close`. */
export class RequestFile {
  readonly name: string;
  readonly #path: string;
  readonly #folder: string | undefined;
  readonly #signal: AbortSignal;
  #format: Format | undefined;
  #digest = '';

  private constructor(name: string, path: string, folder: string | undefined, signal: AbortSignal) {
    this.name = name;
    this.#path = path;
    this.#folder = folder;
    this.#signal = signal;
  }

  static async open(path: string, stdin: Readable, signal: AbortSignal): Promise<RequestFile> {
    if (path !== '-') return new RequestFile(path, path, undefined, signal);
    const folder = await mkdtemp(join(tmpdir(), 'llm-batch-'));
    const file = new RequestFile('stdin', join(folder, 'requests.jsonl'), folder, signal);
    try {
      await pipeline(stdin, createWriteStream(file.#path, { mode: 0o600 }), { signal });
    } catch (error) {
      await file.close();
      throw signal.aborted ? signal.reason : error;
    }
    return file;
  }

  /** Reads all lines. `format` is found out if it is not given. Throws InputError for the first line at fault. */
  async check(
    format: Format | undefined,
    onRequest: (request: Fields, line: number) => void = () => undefined,
  ): Promise<Checked> {
    this.#format = format;
    const hash = createHash('sha256');
    const lineById = new Map<string, number>();
    let bytes = 0;
    const counted = (chunk: Buffer) => {
      bytes += chunk.length;
    };
    for await (const { number, request } of this.#read(hash, counted)) {
      const id = String(request['custom_id']);
      const first = lineById.get(id);
      if (first !== undefined) {
        throw new InputError(this.name, number, `custom_id: the same as in line ${first}`);
      }
      lineById.set(id, number);
      onRequest(request, number);
    }
    if (this.#format === undefined) throw new UsageError(`${this.name} holds no request`);
    this.#digest = hash.digest('hex');
    return { format: this.#format, requests: lineById.size, bytes, digest: this.#digest };
  }

  /** The requests in our format, of a file that was checked. Throws UsageError if it has changed since. */
  async *requests(): AsyncGenerator<BatchRequest, void, void> {
    const hash = createHash('sha256');
    for await (const { request } of this.#read(hash, () => undefined))
      yield request as unknown as BatchRequest;
    if (hash.digest('hex') !== this.#digest) {
      throw new UsageError(`${this.name} changed while it was read: nothing was submitted`);
    }
  }

  /** The line of the request with this index from 0; undefined if there is none. */
  async lineOf(index: number): Promise<number | undefined> {
    let n = 0;
    for await (const { number } of parseLines(this.name, readBytes(this.#path, this.#signal))) {
      if (n === index) return number;
      n += 1;
    }
    return undefined;
  }

  async close(): Promise<void> {
    if (this.#folder !== undefined) await rm(this.#folder, { recursive: true, force: true });
  }

  async *#read(hash: Hash, onChunk: (chunk: Buffer) => void) {
    const hashed = this.#hashed(hash, onChunk);
    for await (const { number, bytes, value } of parseLines(this.name, hashed)) {
      this.#format ??= requestFormat(this.name, number, value);
      const shape: Shape = { format: this.#format, kind: 'requests' };
      const request = inOurs(this.name, number, value, shape, STRICT);
      if (bytes > LARGE_BYTES) checkSize(this.name, number, request);
      yield { number, request };
    }
  }

  async *#hashed(hash: Hash, onChunk: (chunk: Buffer) => void): AsyncGenerator<Buffer, void, void> {
    for await (const chunk of readBytes(this.#path, this.#signal)) {
      hash.update(chunk);
      onChunk(chunk);
      yield chunk;
    }
  }
}

function requestFormat(name: string, number: number, line: Fields): Format {
  const shape = shapeOf(line);
  if (shape?.kind === 'requests') return shape.format;
  const what = shape === undefined ? 'not a request' : 'a result, not a request';
  throw new InputError(name, number, `this is ${what}: custom_id and params (or body) are expected`);
}

function checkSize(name: string, number: number, request: Fields): void {
  const bytes = Buffer.byteLength(JSON.stringify(request));
  if (bytes <= PART_MAX_BYTES - FRAME_BYTES) return;
  throw new InputError(
    name,
    number,
    `the request has ${bytes} bytes; one request may have ${PART_MAX_BYTES - FRAME_BYTES}`,
  );
}

/** A line in our format, or InputError that names the line and the field. */
export function inOurs(name: string, number: number, line: Fields, shape: Shape, policy: Policy): Fields {
  return converted(name, number, () => toOurs(line, shape, policy));
}

/** What `convert` gives; its ConversionError becomes an InputError of this line. */
export function converted(name: string, number: number, convert: () => Fields): Fields {
  try {
    return convert();
  } catch (error) {
    if (error instanceof ConversionError) throw new InputError(name, number, error.message);
    throw error;
  }
}
