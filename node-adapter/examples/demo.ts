// Personalises leads in four batches: sales_intel -> subject -> email -> polish, each stage fed by the one before.
//
//   node dist-examples/demo.js --leads examples/leads.jsonl --out out --prices ../runpod/prices.json [--simulated]
//
// Reads LOCAL_BATCH_URL and RUNPOD_API_KEY. Exits with 0 only if every request of every stage has its result.
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { readLeads, writeJsonLines } from './demo/leads.js';
import { readPrices } from './demo/prices.js';
import { Progress } from './demo/progress.js';
import { type Drafts, promptsOf, STAGES } from './demo/prompts.js';
import { formatReport } from './demo/report.js';
import { runStage, type StageRun } from './demo/stageRun.js';

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      leads: { type: 'string' },
      out: { type: 'string' },
      prices: { type: 'string' },
      simulated: { type: 'boolean', default: false },
      'max-wait-s': { type: 'string', default: '600' },
    },
  });
  const { leads: leadsPath, out, prices: pricesPath } = values;
  if (leadsPath === undefined || out === undefined || pricesPath === undefined) {
    throw new Error('usage: demo.js --leads FILE --out FOLDER --prices FILE [--simulated] [--max-wait-s N]');
  }
  const leads = await readLeads(leadsPath);
  const prices = await readPrices(pricesPath);
  await mkdir(out, { recursive: true });

  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort(new Error('stopped')));

  const drafts: Drafts = new Map();
  const runs: StageRun[] = [];
  for (const stage of STAGES) {
    const run = await runStage({
      stage,
      requests: promptsOf(stage, leads, drafts),
      maxWaitMs: Number(values['max-wait-s']) * 1000,
      signal: stop.signal,
      progress: new Progress(stage, leads.length, process.stderr),
    });
    runs.push(run);
    await writeJsonLines(join(out, `${stage}.jsonl`), run.results);
    for (const [customId, text] of run.texts) drafts.set(customId, text);
    // The next stage needs every text of this one.
    if (run.faults.length > 0) break;
  }

  console.log(formatReport(runs, prices, { simulated: values.simulated, leads: leads.length }));
  const faults = runs.flatMap((run) => run.faults);
  if (faults.length > 0) {
    console.error(`${faults.length} results are missing or failed:\n  ${faults.slice(0, 10).join('\n  ')}`);
    return 1;
  }
  const personalized = leads.map(({ leadId, accountId, firstName, company }) => ({
    leadId,
    accountId,
    firstName,
    company,
    subject: drafts.get(`lead_${leadId}_subject`),
    email: drafts.get(`lead_${leadId}_polish`),
  }));
  await writeJsonLines(join(out, 'personalized.jsonl'), personalized);
  console.log(
    `Results: ${join(out, 'personalized.jsonl')} and ${STAGES.map((stage) => `${stage}.jsonl`).join(', ')}`,
  );
  return 0;
}

main().then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  },
);
