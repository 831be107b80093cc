// Stores what came back for each lead. The same file before and after the move.
import type { LeadStore } from '../campaign/leadStore.js';
import { parseCustomId } from '../campaign/stages.js';

interface Result {
  custom_id: string;
  status: string;
  message: { content: readonly { type: string; text?: string }[] } | null;
  error: { type: string; message: string } | null;
}

/** How many of the results have a text. */
export function processBatchResults(results: readonly Result[], store: LeadStore): number {
  let succeeded = 0;
  for (const { custom_id, status, message, error } of results) {
    const { leadId, stage } = parseCustomId(custom_id);
    if (status === 'succeeded') {
      store.saveDraft(leadId, stage, message?.content[0]?.text ?? '');
      succeeded += 1;
    } else {
      store.saveFailure(leadId, stage, error?.message ?? status);
    }
  }
  return succeeded;
}
