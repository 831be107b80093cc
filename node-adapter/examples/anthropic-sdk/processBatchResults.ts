// Stores what came back for each lead, as it is read. The same file before and after the move.
import type Anthropic from '@anthropic-ai/sdk';
import type { LeadStore } from '../campaign/leadStore.js';
import { parseCustomId } from '../campaign/stages.js';

/** How many of the results have a text. */
export async function processBatchResults(
  results: AsyncIterable<Anthropic.Messages.MessageBatchIndividualResponse>,
  store: LeadStore,
): Promise<number> {
  let succeeded = 0;
  for await (const { custom_id, result } of results) {
    const { leadId, stage } = parseCustomId(custom_id);
    switch (result.type) {
      case 'succeeded': {
        const texts = result.message.content.map((block) => (block.type === 'text' ? block.text : ''));
        store.saveDraft(leadId, stage, texts.join(''));
        succeeded += 1;
        break;
      }
      case 'errored':
        store.saveFailure(leadId, stage, result.error.error.message);
        break;
      default:
        store.saveFailure(leadId, stage, result.type);
    }
  }
  return succeeded;
}
