// An editable install has a copy of the extension below share/jupyter: without this it would stay as old as the install.
import { cp, lstat, rm } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import path from 'node:path';

const project = path.dirname(path.dirname(path.dirname(fileURLToPath(import.meta.url))));
const built = path.join(project, 'cambio_lab', 'labextension');
const places = [path.join(project, '.venv'), process.env.VIRTUAL_ENV, process.env.CONDA_PREFIX].filter(Boolean);
for (const place of new Set(places.map(one => path.resolve(one)))) {
  const copy = path.join(place, 'share', 'jupyter', 'labextensions', 'cambio-lab');
  const found = await lstat(copy).catch(() => null);
  if (!found?.isDirectory()) continue; // not installed there, or a link to the build
  await rm(path.join(copy, 'static'), { recursive: true, force: true });
  await cp(built, copy, { recursive: true }); // beside install.json
}
