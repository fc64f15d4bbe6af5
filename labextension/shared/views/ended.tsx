import type { VNode } from 'preact';
import { useState } from 'preact/hooks';
import type { SessionModel } from '../hub';
import { trans } from '../language';
import { openRun, openSession } from '../open';
import { plain } from '../text';
import { download } from './download';
import { Screenshot } from './screenshot';

/** In place of the desktop of a session that has ended: its last screenshot, the reason, its recorded run. */
export function Ended({ model }: { model: SessionModel }): VNode {
  const { steps, endReason, name } = model.view;
  const last = [...steps.values()].findLast(step => step.image !== null);
  const page = model.api.url(`cambio/run/${encodeURIComponent(model.id)}`);
  const [starting, setStarting] = useState(false);
  const goOn = async (): Promise<void> => {
    setStarting(true);
    try {
      openSession((await model.api.continueSession(model.id)).id);
    } catch (error) {
      model.say(error instanceof Error ? error.message : String(error));
    } finally {
      setStarting(false);
    }
  };
  const save = async (): Promise<void> => {
    try {
      download(await model.api.run(model.id), `${name || 'run'}.cambio`);
    } catch (error) {
      model.say(error instanceof Error ? error.message : String(error));
    }
  };
  return (
    <div class="jp-Cambio-ended">
      {last?.image && (
        <Screenshot
          api={model.api}
          path={last.image}
          width={last.width}
          height={last.height}
          mark={null}
          alt={trans.__('The last screenshot')}
        />
      )}
      <div class="jp-Cambio-veil" role="status">
        <p>{trans.__('This session has ended.')}</p>
        {endReason && <p>{endReason === 'request' ? trans.__('It was ended on request.') : trans.__('Reason: %1', plain(endReason))}</p>}
        {!model.missing && (
          <>
            {!model.api.relayed && (
              <button type="button" class="jp-Cambio-button jp-Cambio-primary" onClick={() => openRun(model.id, page)}>
                {trans.__('Open run')}
              </button>
            )}
            <button type="button" class="jp-Cambio-button" disabled={starting} onClick={() => void goOn()}>
              {trans.__('Continue in a new session')}
            </button>
            <button type="button" class="jp-Cambio-button" onClick={() => void save()}>
              {trans.__('Download run')}
            </button>
          </>
        )}
      </div>
    </div>
  );
}
