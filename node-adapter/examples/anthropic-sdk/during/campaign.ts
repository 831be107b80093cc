// Personalises leads in four batches, each stage fed by the one before, through Anthropic's SDK.
//
//   node campaign.js leads.jsonl results.jsonl
import { setTimeout as sleep } from 'node:timers/promises';
import Anthropic from '@anthropic-ai/sdk';
import { AnthropicRouter } from 'llm-batch-adapter/rollout';
import { runpodFetch } from 'llm-batch-adapter/runpodFetch';
import { LeadStore } from '../../campaign/leadStore.js';
import { type CampaignStage, customIdOf, promptOf, STAGES } from '../../campaign/stages.js';
import { readLeads } from '../../demo/leads.js';
import { processBatchResults } from '../processBatchResults.js';

const { LOCAL_BATCH_URL: batchUrl = '', RUNPOD_API_KEY: apiKey = '' } = process.env;
const anthropic = new AnthropicRouter({
  remote: new Anthropic(),
  local: () => new Anthropic({ apiKey: 'unused', fetch: runpodFetch({ batchUrl, apiKey }) }),
  key: ({ params }) => params.metadata?.user_id ?? '',
});

const MODEL_BY_STAGE: Record<CampaignStage, string> = {
  sales_intel: 'claude-sonnet-4-5',
  subject: 'claude-haiku-4-5',
  email: 'claude-haiku-4-5',
  polish: 'claude-sonnet-4-5',
};

function requestsOf(stage: CampaignStage, store: LeadStore): Anthropic.Messages.BatchCreateParams.Request[] {
  return store.open().map(({ lead, drafts }) => {
    const { system, user, maxTokens } = promptOf(stage, lead, drafts);
    return {
      custom_id: customIdOf(lead.leadId, stage),
      params: {
        model: MODEL_BY_STAGE[stage],
        max_tokens: maxTokens,
        system,
        messages: [{ role: 'user', content: user }],
        metadata: { user_id: lead.leadId },
      },
    };
  });
}

async function waitForBatch(batchId: string): Promise<void> {
  for (let intervalMs = 1000; ; intervalMs = Math.min(30_000, intervalMs * 1.5)) {
    const batch = await anthropic.messages.batches.retrieve(batchId);
    if (batch.processing_status === 'ended') return;
    await sleep(intervalMs);
  }
}

async function runStage(stage: CampaignStage, store: LeadStore): Promise<void> {
  const requests = requestsOf(stage, store);
  const { id } = await anthropic.messages.batches.create({ requests });
  await waitForBatch(id);
  const succeeded = await processBatchResults(await anthropic.messages.batches.results(id), store);
  console.log(`${stage}: ${succeeded} of ${requests.length} leads`);
}

const [leadsPath = 'leads.jsonl', resultsPath = 'results.jsonl'] = process.argv.slice(2);
const store = new LeadStore(await readLeads(leadsPath));
for (const stage of STAGES) await runStage(stage, store);
await store.write(resultsPath);
