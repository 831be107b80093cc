// Reads a foreign object field by field: what is wrong, and what nobody has read, is named by its path.

/** Something that has no counterpart in the other format. The message begins with the field's path. */
export class ConversionError extends Error {
  constructor(path: string, what: string) {
    super(`${path}: ${what}`);
  }
}

/** How strict a conversion is: `lose` is asked about each field that would be left out, and throws to forbid it. */
export interface Policy {
  lose(path: string, what: string): void;
  /** The model of requests that name none, where the other format needs one. */
  readonly model?: string | undefined;
}

/** Forbids every loss. */
export const STRICT: Policy = {
  lose: (path, what) => {
    throw new ConversionError(path, what);
  },
};

/** An object whose fields are taken out one by one. */
export class Reader {
  readonly #fields: Readonly<Record<string, unknown>>;
  readonly #taken = new Set<string>();
  readonly path: string;

  constructor(value: unknown, path: string) {
    if (!isObject(value)) throw new ConversionError(path === '' ? 'line' : path, 'must be an object');
    this.#fields = value;
    this.path = path;
  }

  at(name: string): string {
    return this.path === '' ? name : `${this.path}.${name}`;
  }

  /** A field; null counts as absent, as it does in all three formats. */
  any(name: string): unknown {
    this.#taken.add(name);
    return this.#fields[name] ?? undefined;
  }

  text(name: string): string | undefined {
    return this.#typed(name, 'text', (value): value is string => typeof value === 'string');
  }

  number(name: string): number | undefined {
    return this.#typed(name, 'a number', (value): value is number => typeof value === 'number');
  }

  boolean(name: string): boolean | undefined {
    return this.#typed(name, 'true or false', (value): value is boolean => typeof value === 'boolean');
  }

  list(name: string): readonly unknown[] | undefined {
    return this.#typed(name, 'a list', (value): value is readonly unknown[] => Array.isArray(value));
  }

  object(name: string): Reader | undefined {
    const value = this.any(name);
    return value === undefined ? undefined : new Reader(value, this.at(name));
  }

  needed<T>(name: string, value: T | undefined): T {
    if (value === undefined) throw new ConversionError(this.at(name), 'is missing');
    return value;
  }

  /** The fields that nobody has taken, null ones aside. */
  rest(): Readonly<Record<string, unknown>> {
    const left = Object.entries(this.#fields).filter(
      ([name, value]) => !this.#taken.has(name) && value !== null,
    );
    return Object.fromEntries(left);
  }

  /** Asks the policy about every field that nobody has taken. */
  loseRest(policy: Policy, format: string): void {
    for (const name of Object.keys(this.rest())) policy.lose(this.at(name), `has no place in ${format}`);
  }

  #typed<T>(name: string, kind: string, fits: (value: unknown) => value is T): T | undefined {
    const value = this.any(name);
    if (value === undefined || fits(value)) return value;
    throw new ConversionError(this.at(name), `must be ${kind}`);
  }
}

export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** An object without the fields that are undefined or an empty object. */
export function compact(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const kept = Object.entries(fields).filter(
    ([, value]) => value !== undefined && !(isObject(value) && Object.keys(value).length === 0),
  );
  return Object.fromEntries(kept);
}
