// Builds everything a browser loads: the ESM modules of cambio_lab/static, and lib/ for the JupyterLab builder.
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import path from 'node:path';
import * as esbuild from 'esbuild';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const out = path.join(path.dirname(root), 'cambio_lab', 'static');
const { version } = JSON.parse(await readFile(path.join(root, 'package.json'), 'utf8'));

const common = {
  absWorkingDir: root,
  bundle: true,
  format: 'esm',
  target: 'es2022',
  minify: !process.argv.includes('--development'),
  sourcemap: process.argv.includes('--development') ? 'inline' : false,
  jsx: 'automatic',
  jsxImportSource: 'preact',
  define: { VERSION: JSON.stringify(version) },
  legalComments: 'none',
  logLevel: 'warning'
};

// noVNC asks with top-level await whether the browser decodes H.264, which no desktop of ours sends; a classic script,
// the only kind that needs no second request from a sandboxed document, cannot wait.
const withoutAwait = {
  name: 'without-top-level-await',
  setup: build =>
    build.onLoad({ filter: /novnc[\\/]core[\\/]util[\\/]browser\.js$/ }, async ({ path: file }) => {
      const text = await readFile(file, 'utf8');
      const contents = text.replace(/^supportsWebCodecsH264Decode = await .*$/m, '');
      if (contents === text) throw new Error('noVNC has changed: look for its top-level await');
      return { contents };
    })
};

/** The document of a desktop, in one file: a sandboxed frame has no cookies with which to ask for a second one. */
async function buildFrame() {
  const options = { ...common, format: 'iife', entryPoints: ['frame/frame.ts'], plugins: [withoutAwait], write: false };
  const [page, built] = await Promise.all([readFile(path.join(root, 'frame/frame.html'), 'utf8'), esbuild.build(options)]);
  const script = built.outputFiles[0].text.replaceAll('</script', '<\\/script').replaceAll('<!--', '<\\!--');
  await writeFile(
    path.join(out, 'frame.html'),
    page.replace('/* frame.ts */', () => script)
  );
}

await mkdir(out, { recursive: true });
await rm(path.join(out, 'chunks'), { recursive: true, force: true });
await Promise.all([
  // Modules of the server's static route. They share chunks, so that a page with a notebook panel, the sidebar and a
  // viewer has one copy of the session model, and with it one socket for all sessions.
  esbuild.build({
    ...common,
    entryPoints: { panel: 'panel/panel.ts', agents: 'panel/agents.tsx', runs: 'panel/runs.tsx', viewer: 'viewer/viewer.tsx' },
    splitting: true,
    chunkNames: 'chunks/[name]-[hash]',
    outdir: out
  }),
  buildFrame(),
  // The panel in one piece, for pages that cannot reach the server: a kernel sends it as text.
  esbuild.build({ ...common, entryPoints: { relay: 'panel/relay.tsx' }, outdir: out }),
  // The notebook's module travels inside every saved widget state, so it is a few lines that load the rest.
  esbuild.build({ ...common, entryPoints: { widget: 'widget/widget.ts' }, outdir: out }),
  esbuild.build({
    ...common,
    entryPoints: { panel: 'shared/style/panel.css', viewer: 'viewer/viewer.css', widget: 'widget/widget.css' },
    outdir: out
  }),
  // The JupyterLab plugin: one file, everything of JupyterLab's own left for its builder to share.
  esbuild.build({
    ...common,
    minify: false,
    entryPoints: { index: 'src/index.ts' },
    packages: 'external',
    outdir: path.join(root, 'lib')
  })
]);
// What the licences of the bundled packages ask for.
const licences = { '@novnc/novnc': 'LICENSE.txt', fflate: 'LICENSE', marked: 'LICENSE', preact: 'LICENSE' };
const texts = Object.entries(licences).map(
  async ([name, file]) => `${name}\n\n${await readFile(path.join(root, 'node_modules', name, file), 'utf8')}`
);
await writeFile(path.join(out, 'LICENSES.txt'), (await Promise.all(texts)).join(`\n\n${'-'.repeat(80)}\n\n`));
