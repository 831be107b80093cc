// Builds the package: ES modules and CommonJS from the same sources, then the examples against that build.
import { spawnSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const compiler = createRequire(import.meta.url).resolve('typescript/bin/tsc');

function compile(project) {
  const { status } = spawnSync(process.execPath, [compiler, '-p', project], { cwd: root, stdio: 'inherit' });
  if (status !== 0) process.exit(1);
}

for (const folder of ['dist', 'dist-examples']) {
  rmSync(`${root}/${folder}`, { recursive: true, force: true });
}
compile('tsconfig.esm.json');
compile('tsconfig.cjs.json');
// The package is type: module; this file makes Node and TypeScript read the second build as CommonJS.
writeFileSync(`${root}/dist/cjs/package.json`, '{ "type": "commonjs" }\n');
compile('tsconfig.examples.json');
