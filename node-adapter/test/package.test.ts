import assert from 'node:assert/strict';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { PACKAGE_ROOT, runNode } from './support/runNode.js';

const requirePackage = createRequire(import.meta.url);
const NAMES = [
  'createBatch',
  'getBatchStatus',
  'getBatchResults',
  'waitForBatch',
  'cancelBatch',
  'listBatches',
  'deleteBatch',
  'streamBatchResults',
  'checkHealth',
];

test('the ES module and the CommonJS build export the same names', async () => {
  const esm = await import('llm-batch-adapter');
  const cjs = requirePackage('llm-batch-adapter');
  assert.deepEqual(Object.keys(esm).sort(), Object.keys(cjs).sort());
  for (const name of NAMES) assert.equal(typeof cjs[name], 'function', name);
  assert.notEqual(cjs.LlmBatchClient, esm.LlmBatchClient, 'each format has its own build');
});

test('each folder of the package can be imported and required by its own name', async () => {
  for (const path of ['callback', 'client', 'errors', 'llmAdapter', 'runpodFetch', 'types']) {
    const esm = await import(`llm-batch-adapter/${path}`);
    const cjs = requirePackage(`llm-batch-adapter/${path}`);
    assert.deepEqual(Object.keys(esm).sort(), Object.keys(cjs).sort(), path);
  }
});

test('nothing is needed at run time', () => {
  const manifest = JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8'));
  assert.equal(manifest.dependencies, undefined);
  assert.equal(manifest.peerDependencies, undefined);
  for (const [name, version] of Object.entries(manifest.devDependencies)) {
    assert.match(String(version), /^(npm:@anthropic-ai\/sdk@)?\d+\.\d+\.\d+$/, `${name} is not pinned`);
  }
});

test('the lock file holds no download address', () => {
  const lock = readFileSync(join(PACKAGE_ROOT, 'package-lock.json'), 'utf8');
  assert.ok(!lock.includes('"resolved"'));
});

// How apps resolve packages: Node's own way in both formats, the old one, and bundlers.
const RESOLUTIONS: Record<string, { type: string; options: Record<string, string> }> = {
  'NodeNext, ES modules': { type: 'module', options: { module: 'NodeNext', moduleResolution: 'NodeNext' } },
  'NodeNext, CommonJS': { type: 'commonjs', options: { module: 'NodeNext', moduleResolution: 'NodeNext' } },
  'Node10, CommonJS': { type: 'commonjs', options: { module: 'CommonJS', moduleResolution: 'Node10' } },
  Bundler: { type: 'module', options: { module: 'ESNext', moduleResolution: 'Bundler' } },
};
for (const [name, { type, options }] of Object.entries(RESOLUTIONS)) {
  test(`an app written against the contract compiles under strict: ${name}`, async (t) => {
    const app = mkdtempSync(join(tmpdir(), 'adapter-consumer-'));
    t.after(() => rmSync(app, { recursive: true, force: true }));
    mkdirSync(join(app, 'node_modules/@types'), { recursive: true });
    symlinkSync(PACKAGE_ROOT, join(app, 'node_modules/llm-batch-adapter'));
    symlinkSync(join(PACKAGE_ROOT, 'node_modules/@types/node'), join(app, 'node_modules/@types/node'));
    cpSync(join(PACKAGE_ROOT, 'test/consumers/leadService.ts'), join(app, 'leadService.ts'));
    writeFileSync(join(app, 'package.json'), JSON.stringify({ type }));
    const compilerOptions = {
      ...options,
      target: 'ES2022',
      lib: ['ES2022'],
      types: ['node'],
      strict: true,
      noUncheckedIndexedAccess: true,
      exactOptionalPropertyTypes: true,
      skipLibCheck: false,
      noEmit: true,
    };
    writeFileSync(join(app, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['leadService.ts'] }));
    const tsc = requirePackage.resolve('typescript/bin/tsc');
    const { code, stdout } = await runNode([tsc, '-p', app]);
    assert.equal(code, 0, stdout);
  });
}

// ES2018 is the floor: earlier ones have no async iterators.
for (const target of ['ES2018', 'ES2020', 'ES2022']) {
  test(`an app that takes in the source files compiles for ${target}`, async (t) => {
    const app = mkdtempSync(join(tmpdir(), 'adapter-consumer-'));
    t.after(() => rmSync(app, { recursive: true, force: true }));
    mkdirSync(join(app, 'node_modules/@types'), { recursive: true });
    symlinkSync(join(PACKAGE_ROOT, 'node_modules/@types/node'), join(app, 'node_modules/@types/node'));
    cpSync(join(PACKAGE_ROOT, 'src'), join(app, 'llm'), { recursive: true });
    const service = readFileSync(join(PACKAGE_ROOT, 'test/consumers/leadService.ts'), 'utf8');
    writeFileSync(
      join(app, 'leadService.ts'),
      service.replaceAll(/'llm-batch-adapter(\/\w+)?'/g, (_, file) => `'./llm${file ?? '/llmAdapter'}'`),
    );
    const compilerOptions = {
      module: 'CommonJS',
      moduleResolution: 'Node10',
      target,
      lib: [target],
      types: ['node'],
      strict: true,
      noEmit: true,
    };
    writeFileSync(join(app, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['leadService.ts'] }));
    const tsc = requirePackage.resolve('typescript/bin/tsc');
    const { code, stdout } = await runNode([tsc, '-p', app]);
    assert.equal(code, 0, stdout);
  });
}
