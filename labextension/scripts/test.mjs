// Bundles each unit test and runs it with Node's own test runner; tests that need a page get happy-dom's.
import { spawnSync } from 'node:child_process';
import { readdir, rm } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import path from 'node:path';
import * as esbuild from 'esbuild';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const out = path.join(root, '.test');
const tests = (await readdir(path.join(root, 'tests'))).filter(name => /\.test\.tsx?$/.test(name));
await rm(out, { recursive: true, force: true });
await esbuild.build({
  absWorkingDir: root,
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  jsx: 'automatic',
  jsxImportSource: 'preact',
  define: { VERSION: '"test"' },
  external: ['happy-dom'],
  entryPoints: tests.map(name => path.join('tests', name)),
  outExtension: { '.js': '.mjs' },
  outdir: out
});
const found = tests.map(name => path.join(out, name.replace(/\.tsx?$/, '.mjs')));
const run = spawnSync(process.execPath, ['--test', ...process.argv.slice(2), ...found], { stdio: 'inherit' });
await rm(out, { recursive: true, force: true });
process.exit(run.status ?? 1);
