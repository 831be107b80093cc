// The leads and the files around them: JSON, one object a line.
import { readFile, writeFile } from 'node:fs/promises';

/** One person at one company, and why to write to them now. */
export interface Lead {
  leadId: string;
  accountId: string;
  firstName: string;
  lastName: string;
  title: string;
  company: string;
  industry: string;
  employees: number;
  city: string;
  country: string;
  website: string;
  triggerEvent: string;
  painPoints: string[];
  productInterest: string;
}

/** The leads of a file, or an Error that names the line at fault. */
export async function readLeads(path: string): Promise<Lead[]> {
  const lines = (await readFile(path, 'utf8')).split('\n');
  const leads: Lead[] = [];
  for (const [index, line] of lines.entries()) {
    if (line.trim() === '') continue;
    try {
      leads.push(JSON.parse(line));
    } catch {
      throw new Error(`${path}, line ${index + 1}: not JSON`);
    }
  }
  if (leads.length === 0) throw new Error(`${path}: no leads`);
  return leads;
}

/** Writes one object a line. */
export async function writeJsonLines(path: string, values: readonly unknown[]): Promise<void> {
  await writeFile(path, values.map((value) => `${JSON.stringify(value)}\n`).join(''));
}
