// Where results go: stdout, or a file that appears under its name only when it is whole.
import { type FileHandle, open, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Writable } from 'node:stream';
import { UsageError } from './exit.js';

const BUFFER_CHARS = 1 << 18;

/** Takes lines; holds a little of them, and waits where its receiver is slow. */
export class LineWriter {
  readonly #write: (text: string) => Promise<void>;
  #held = '';

  constructor(write: (text: string) => Promise<void>) {
    this.#write = write;
  }

  async line(text: string): Promise<void> {
    this.#held += `${text}\n`;
    if (this.#held.length >= BUFFER_CHARS) await this.flush();
  }

  async flush(): Promise<void> {
    const text = this.#held;
    this.#held = '';
    if (text !== '') await this.#write(text);
  }
}

/** Writes text to a stream; rejects when its reader is gone. */
export function writeText(stream: Writable, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    stream.write(text, (error) => (error ? reject(error) : resolve()));
  });
}

/**
 * Lets `fill` write lines to `path`, or to `stdout` where it is undefined or `-`. A file is written beside its place
 * under a hidden name, and takes its place when all is on the disk; if anything fails, nothing is left of it. What is
 * there and no file, such as a pipe or /dev/null, is written to as it is.
 */
export async function writeLines(
  path: string | undefined,
  stdout: Writable,
  fill: (writer: LineWriter) => Promise<void>,
): Promise<void> {
  if (path === undefined || path === '-') {
    const writer = new LineWriter((text) => writeText(stdout, text));
    await fill(writer);
    await writer.flush();
    return;
  }
  if (await isSpecial(path)) return writeFile(await opened(path, path), fill);
  const unfinished = join(dirname(path), `.${basename(path)}.${process.pid}.unfinished`);
  const file = await opened(unfinished, path);
  try {
    await writeFile(file, async (writer) => {
      await fill(writer);
      await writer.flush();
      await file.sync();
    });
    await rename(unfinished, path);
  } catch (error) {
    await rm(unfinished, { force: true });
    throw error;
  }
}

async function writeFile(file: FileHandle, fill: (writer: LineWriter) => Promise<void>): Promise<void> {
  try {
    const writer = new LineWriter((text) => file.writeFile(text));
    await fill(writer);
    await writer.flush();
  } finally {
    await file.close();
  }
}

// Whether something other than a file has this name: it must not be replaced by one.
async function isSpecial(path: string): Promise<boolean> {
  try {
    return !(await stat(path)).isFile();
  } catch {
    return false;
  }
}

async function opened(unfinished: string, path: string): Promise<FileHandle> {
  try {
    return await open(unfinished, 'w', 0o600);
  } catch (error) {
    throw new UsageError(
      `${path} can't be written: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}
