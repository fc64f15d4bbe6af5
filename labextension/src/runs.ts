import type { JupyterFrontEndPlugin } from '@jupyterlab/application';

export const runs: JupyterFrontEndPlugin<void>[] = [];
