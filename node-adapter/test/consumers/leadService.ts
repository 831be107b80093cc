// An app's service as it was written against the former adapter: plain strings as stages, strict TypeScript.

import type { BatchRequest, BatchResult, BatchResultsResponse, BatchStatus, Stage } from 'llm-batch-adapter';
import { createBatch, getBatchResults, getBatchStatus, waitForBatch } from 'llm-batch-adapter';
import { createBatch as createBatchFromFile } from 'llm-batch-adapter/llmAdapter';
import type { BatchRequest as RequestFromFile } from 'llm-batch-adapter/types';

interface Lead {
  leadId: string;
  accountId: string;
}

// An interface has no index signature of its own; it must still fit.
interface OurMetadata {
  leadId?: string;
  accountId?: string;
  campaign: string;
}

function toRequest(lead: Lead, stage: string, hint?: 'mistral' | 'llama-70b'): BatchRequest {
  const metadata: OurMetadata = { leadId: lead.leadId, accountId: lead.accountId, campaign: 'spring' };
  return {
    custom_id: `lead_${lead.leadId}_${stage}`,
    params: {
      system: 'You write e-mails.',
      messages: [{ role: 'user', content: 'Write one.' }],
      max_tokens: 512,
      temperature: 0.3,
      top_p: 0.9,
    },
    metadata: hint ? { ...metadata, model_hint: hint } : metadata,
  };
}

function parse(result: BatchResult): { leadId: string; stage: string; text: string } {
  const [, leadId = '', ...stage] = result.custom_id.split('_');
  if (result.status !== 'succeeded' || result.message === null) {
    throw new Error(result.error ? `${result.error.type}: ${result.error.message}` : 'no reason');
  }
  return { leadId, stage: stage.join('_'), text: result.message.content[0].text };
}

export async function runStage(stage: string, leads: Lead[]): Promise<string[]> {
  const batch: { id: string } = await createBatch(
    stage,
    leads.map((lead) => toRequest(lead, stage)),
  );
  const known: Stage = 'sales_intel';
  const own: Stage = 'a_stage_of_ours';
  await createBatchFromFile(known === own ? known : own, [] as RequestFromFile[]);
  const status: BatchStatus = await getBatchStatus(batch.id);
  const { total, succeeded, errored, pending } = status.counts;
  if (total !== succeeded + errored + pending) console.log(status.updated_at, status.created_at);
  const ended = await waitForBatch(batch.id, 5 * 60 * 1000);
  switch (ended.processing_status) {
    case 'collected':
    case 'submitted':
    case 'processing':
      return [];
    case 'ended': {
      const response: BatchResultsResponse = await getBatchResults(batch.id);
      const tokens = response.results.reduce((sum, result) => sum + (result.usage?.output_tokens ?? 0), 0);
      return [...response.results.map((result) => parse(result).text), String(tokens)];
    }
  }
}

export async function tolerate(batchId: string): Promise<BatchResult[] | undefined> {
  try {
    return (await getBatchResults(batchId)).results;
  } catch (error) {
    if (error instanceof Error && error.message.includes('Batch not yet complete')) return undefined;
    throw error;
  }
}
