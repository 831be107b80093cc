// What people see: results on stdout; progress and notes on stderr.
import type { Writable } from 'node:stream';
import { writeText } from './output.js';

/** A stream that may be a terminal. */
export type Screen = Writable & { readonly isTTY?: boolean; readonly columns?: number };

const CODES = { bold: 1, red: 31, green: 32, yellow: 33 } as const;
const ERASE_LINE = '\r\u001b[2K';

/** Whether a stream may be coloured; NO_COLOR forbids it, whatever it holds (no-color.org). */
export function mayColour(screen: Screen, env: Readonly<Record<string, string | undefined>>): boolean {
  return screen.isTTY === true && !env['NO_COLOR'] && env['TERM'] !== 'dumb';
}

/** Writes to stdout and stderr; `quiet` keeps notes and progress to itself, `json` is what stdout gets. */
export class Terminal {
  readonly #stdout: Screen;
  readonly #stderr: Screen;
  readonly #colourOut: boolean;
  readonly #colourErr: boolean;
  readonly json: boolean;
  readonly quiet: boolean;
  #drawn = '';

  constructor(
    stdout: Screen,
    stderr: Screen,
    env: Readonly<Record<string, string | undefined>>,
    options: { json: boolean; quiet: boolean },
  ) {
    this.#stdout = stdout;
    this.#stderr = stderr;
    this.#colourOut = mayColour(stdout, env);
    this.#colourErr = mayColour(stderr, env);
    this.json = options.json;
    this.quiet = options.quiet;
  }

  get stdout(): Writable {
    return this.#stdout;
  }

  /** Whether progress can be redrawn in place. */
  get redraws(): boolean {
    return this.#stderr.isTTY === true;
  }

  get columns(): number {
    // A terminal that does not know its size says 0.
    return this.#stderr.columns || 80;
  }

  /** Prints the command's answer: `value` as JSON, or `text`. */
  async answer(value: unknown, text: string): Promise<void> {
    this.#erase();
    await writeText(this.#stdout, `${this.json ? JSON.stringify(value) : text}\n`);
  }

  /** A line for people, beside the answer. */
  note(text: string): void {
    if (!this.quiet) this.warn(text);
  }

  /** A line for people that is shown even where they asked for quiet. */
  warn(text: string): void {
    this.#erase();
    this.#stderr.write(`${text}\n`);
  }

  /** Progress: redrawn in place on a terminal, else a line wherever it changed. */
  progress(text: string): void {
    if (this.quiet || text === this.#drawn) return;
    this.#stderr.write(this.redraws ? `${ERASE_LINE}${text}` : `${text}\n`);
    this.#drawn = text;
  }

  /** Ends a progress line, so that what follows stands by itself. */
  settle(): void {
    this.#erase();
  }

  bold(text: string): string {
    return this.#paint('bold', text, this.#colourOut);
  }

  /** `text` in a colour, for stdout or for stderr. */
  colour(name: keyof typeof CODES, text: string, where: 'stdout' | 'stderr' = 'stdout'): string {
    return this.#paint(name, text, where === 'stdout' ? this.#colourOut : this.#colourErr);
  }

  #paint(name: keyof typeof CODES, text: string, allowed: boolean): string {
    return allowed ? `\u001b[${CODES[name]}m${text}\u001b[0m` : text;
  }

  #erase(): void {
    if (this.#drawn !== '' && this.redraws) this.#stderr.write(ERASE_LINE);
    this.#drawn = '';
  }
}
