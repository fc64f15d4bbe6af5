// Removes what the build makes, and nothing else (cambio_lab/static holds a .keep file under version control).
import { readdir, rm } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import path from 'node:path';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const statics = path.join(path.dirname(root), 'cambio_lab', 'static');
for (const name of await readdir(statics).catch(() => [])) {
  if (name !== '.keep') await rm(path.join(statics, name), { recursive: true, force: true });
}
for (const directory of [path.join(root, 'lib'), path.join(path.dirname(root), 'cambio_lab', 'labextension')]) {
  await rm(directory, { recursive: true, force: true });
}
