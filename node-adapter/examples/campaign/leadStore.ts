// What the campaign knows of each lead; stands for the app's database.
import { type Lead, writeJsonLines } from '../demo/leads.js';
import type { CampaignStage, Drafts } from './stages.js';

interface Row {
  readonly lead: Lead;
  readonly drafts: Drafts;
  failure?: { stage: CampaignStage; reason: string };
}

export class LeadStore {
  readonly #rows: Map<string, Row>;

  constructor(leads: readonly Lead[]) {
    this.#rows = new Map(leads.map((lead) => [lead.leadId, { lead, drafts: {} }]));
  }

  /** The leads that no stage has failed for, with their texts so far. */
  open(): { lead: Lead; drafts: Drafts }[] {
    return [...this.#rows.values()].filter((row) => row.failure === undefined);
  }

  saveDraft(leadId: string, stage: CampaignStage, text: string): void {
    this.#row(leadId).drafts[stage] = text;
  }

  saveFailure(leadId: string, stage: CampaignStage, reason: string): void {
    this.#row(leadId).failure = { stage, reason };
  }

  /** Writes one line a lead: its texts, and what failed if something did. */
  async write(path: string): Promise<void> {
    const rows = [...this.#rows.values()];
    await writeJsonLines(
      path,
      rows.map(({ lead, drafts, failure }) => ({ leadId: lead.leadId, ...drafts, failure })),
    );
  }

  #row(leadId: string): Row {
    const row = this.#rows.get(leadId);
    if (row === undefined) throw new Error(`no lead ${leadId}`);
    return row;
  }
}
