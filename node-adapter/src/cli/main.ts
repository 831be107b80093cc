#!/usr/bin/env node
// The program `llm-batch`: hands the process over to `run`, and its signals.
import { readFileSync, realpathSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { EXIT, Stopped } from './exit.js';
import { run } from './run.js';

// Without import.meta, because these files are built as CommonJS too.
function packageVersion(): string {
  const here = dirname(realpathSync(process.argv[1] ?? ''));
  return JSON.parse(readFileSync(join(here, '../../../package.json'), 'utf8')).version;
}

const controller = new AbortController();

function onSignal(name: 'SIGINT' | 'SIGTERM', exitCode: number): void {
  process.on(name, () => {
    // Asked twice, it goes at once.
    if (controller.signal.aborted) process.exit(exitCode);
    controller.abort(new Stopped(exitCode, name === 'SIGINT' ? 'interrupted' : 'terminated'));
  });
}

onSignal('SIGINT', EXIT.interrupted);
onSignal('SIGTERM', EXIT.terminated);
// The write that fails tells its caller; without a listener the process would die here.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);

const { env, stdin, stdout, stderr } = process;
run(process.argv.slice(2), {
  env,
  stdin,
  stdout,
  stderr,
  signal: controller.signal,
  version: packageVersion(),
}).then((exitCode) => {
  process.exitCode = exitCode;
  // An open stdin or a kept-alive connection must not hold the process.
  stdin.destroy();
});
