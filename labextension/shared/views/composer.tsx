import type { VNode } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import type { SessionModel } from '../hub';
import { trans } from '../language';
import type { Attachment } from '../outbox';
import { working } from '../working';
import { Button } from './bar';
import { composing } from './hooks';

/** Of one message, as the server has it. */
const MOST_IMAGES = 20;

/** The message box. Images are pasted, dropped or chosen, and uploaded at once; they go with the next message. */
export function Composer({ model }: { model: SessionModel }): VNode {
  const [text, setText] = useState('');
  const [images, setImages] = useState<readonly Attachment[]>([]);
  const area = useRef<HTMLTextAreaElement>(null);
  const last = useRef('');
  const ended = model.view.ended || model.missing;
  const busy = working(model.view.status);
  useEffect(() => {
    const element = area.current;
    if (!element) return;
    element.style.height = 'auto';
    element.style.height = `${Math.min(140, element.scrollHeight + 2)}px`;
  }, [text]);
  const returned = model.outgoing?.state === 'returned';
  useEffect(() => {
    const back = returned && model.returned();
    if (!back) return;
    setText(typed => [back.text, typed].filter(Boolean).join('\n'));
    setImages(before => [...back.images, ...before]);
  }, [returned, model]);
  const attach = async (files: readonly File[]): Promise<void> => {
    if (model.api.relayed) return model.say(trans.__('Images cannot be sent from here. Use session.send(text, images=[...]) in a cell.'));
    try {
      for (const file of files) {
        const digest = await model.api.putImage(model.id, file);
        const added = { digest, url: URL.createObjectURL(file), name: file.name };
        setImages(before => (before.some(one => one.digest === digest) ? before : [...before, added].slice(0, MOST_IMAGES)));
      }
    } catch (error) {
      model.say(trans.__('The image was not taken: %1', error instanceof Error ? error.message : String(error)));
    }
  };
  const take = (event: Event, data: DataTransfer | null): void => {
    const files = imagesIn(data);
    if (!files.length || ended) return;
    event.preventDefault();
    void attach(files);
  };
  const send = (): void => {
    if (!text.trim() || ended) return;
    if (busy && images.length)
      return model.say(trans.__('Images go with a message between turns: wait until the agent is idle, or stop it.'));
    if (!model.write(text, images)) return; // another message is on its way: the text stays
    last.current = text;
    setText('');
    setImages([]);
    area.current?.focus();
  };
  const onKey = (event: KeyboardEvent): void => {
    if (event.key === 'ArrowUp' && !text && last.current) {
      event.preventDefault();
      setText(last.current); // the server may have refused it
    }
    if (event.key !== 'Enter' || event.shiftKey || composing(event)) return;
    event.preventDefault();
    send();
  };
  return (
    <form
      class="jp-Cambio-composer"
      onSubmit={event => (event.preventDefault(), send())}
      onDragOver={event => event.dataTransfer?.types.includes('Files') && event.preventDefault()}
      onDrop={event => take(event, event.dataTransfer)}
    >
      <Attachments images={images} remove={gone => setImages(images.filter(one => one !== gone))} />
      <Attach disabled={ended} choose={attach} />
      <textarea
        ref={area}
        rows={1}
        value={text}
        placeholder={hint(model, ended, busy)}
        aria-label={trans.__('Message to the agent')}
        disabled={ended}
        onInput={event => setText(event.currentTarget.value)}
        onPaste={event => take(event, event.clipboardData)}
        onKeyDown={onKey}
      />
      {busy && !ended && !text.trim() ? (
        <Button icon="stop" label={trans.__('Stop')} kind="danger" onClick={() => model.stop()} />
      ) : (
        <Button icon="send" label={trans.__('Send')} kind="primary" disabled={ended || !text.trim()} onClick={send} />
      )}
    </form>
  );
}

function hint(model: SessionModel, ended: boolean, busy: boolean): string {
  const { approval, question } = model.view;
  if (model.missing) return model.connection.reason;
  if (ended) return trans.__('This session has ended.');
  if (approval) return trans.__('Answer above, or write');
  if (question) return trans.__('Answer above');
  return busy ? trans.__('Say something meanwhile') : trans.__('Message to the agent');
}

function imagesIn(data: DataTransfer | null): File[] {
  return [...(data?.files ?? [])].filter(file => file.type.startsWith('image/'));
}

/** The way to images with the keyboard. */
function Attach({ disabled, choose }: { disabled: boolean; choose: (files: File[]) => Promise<void> }): VNode {
  const input = useRef<HTMLInputElement>(null);
  const onChange = (): void => {
    const element = input.current;
    if (!element) return;
    void choose([...(element.files ?? [])]);
    element.value = '';
  };
  return (
    <>
      <input ref={input} type="file" accept="image/*" multiple hidden onChange={onChange} />
      <Button icon="plus" label={trans.__('Add images')} disabled={disabled} onClick={() => input.current?.click()} />
    </>
  );
}

function Attachments({ images, remove }: { images: readonly Attachment[]; remove: (image: Attachment) => void }): VNode | null {
  if (!images.length) return null;
  return (
    <ul class="jp-Cambio-attachments" aria-label={trans.__('Images of this message')}>
      {images.map(image => (
        <li key={image.digest}>
          <img src={image.url} alt={image.name} />
          <Button icon="cross" label={trans.__('Remove %1', image.name)} onClick={() => remove(image)} />
        </li>
      ))}
    </ul>
  );
}
