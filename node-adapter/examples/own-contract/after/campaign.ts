// Personalises leads in four batches, each stage fed by the one before, through the functions of the app's adapter.
//
//   node campaign.js leads.jsonl results.jsonl

import { type BatchRequest, createBatch, getBatchResults, waitForBatch } from 'llm-batch-adapter';
import { LeadStore } from '../../campaign/leadStore.js';
import { type CampaignStage, customIdOf, promptOf, STAGES } from '../../campaign/stages.js';
import { readLeads } from '../../demo/leads.js';
import { processBatchResults } from '../processBatchResults.js';

const MAX_WAIT_MS = 10 * 60 * 1000;

function requestsOf(stage: CampaignStage, store: LeadStore): BatchRequest[] {
  return store.open().map(({ lead, drafts }) => {
    const { system, user, maxTokens } = promptOf(stage, lead, drafts);
    return {
      custom_id: customIdOf(lead.leadId, stage),
      params: {
        system,
        messages: [{ role: 'user', content: user }],
        max_tokens: maxTokens,
        temperature: 0.3,
      },
      metadata: { leadId: lead.leadId, accountId: lead.accountId },
    };
  });
}

async function runStage(stage: CampaignStage, store: LeadStore): Promise<void> {
  const requests = requestsOf(stage, store);
  const { id } = await createBatch(stage, requests);
  await waitForBatch(id, MAX_WAIT_MS);
  const { results } = await getBatchResults(id);
  const succeeded = processBatchResults(results, store);
  console.log(`${stage}: ${succeeded} of ${requests.length} leads`);
}

const [leadsPath = 'leads.jsonl', resultsPath = 'results.jsonl'] = process.argv.slice(2);
const store = new LeadStore(await readLeads(leadsPath));
for (const stage of STAGES) await runStage(stage, store);
await store.write(resultsPath);
