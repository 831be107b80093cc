// How far a stage is: a bar that is redrawn on a terminal, a few plain lines anywhere else.

const BAR_CHARS = 30;
const PLAIN_STEPS = 4;

/** The part of a stream that progress needs. */
export interface Screen {
  readonly isTTY?: boolean | undefined;
  write(text: string): unknown;
}

/** Progress of one stage. */
export class Progress {
  readonly #startedMs = performance.now();
  #drawn = false;
  #lastStep = -1;

  constructor(
    private readonly stage: string,
    private readonly total: number,
    private readonly screen: Screen,
  ) {
    this.show(0);
  }

  /** Shows that `done` requests are finished. */
  show(done: number): void {
    const seconds = ((performance.now() - this.#startedMs) / 1000).toFixed(1);
    const figures = `${String(done).padStart(String(this.total).length)}/${this.total}  ${seconds} s`;
    if (this.screen.isTTY) {
      const filled = Math.round((BAR_CHARS * done) / this.total);
      const bar = '█'.repeat(filled) + '░'.repeat(BAR_CHARS - filled);
      this.screen.write(`\r\x1b[2K${this.stage.padEnd(12)} ${bar} ${figures}`);
      this.#drawn = true;
      return;
    }
    const step = Math.floor((PLAIN_STEPS * done) / this.total);
    if (step === this.#lastStep) return;
    this.#lastStep = step;
    this.screen.write(`${this.stage.padEnd(12)} ${figures}\n`);
  }

  /** Leaves the bar standing and goes to the next line. */
  close(): void {
    if (this.#drawn) this.screen.write('\n');
    this.#drawn = false;
  }
}
