/** noVNC, without the lossy encodings that it always asks for. */
import RFB from '@novnc/novnc';

/** Pseudo-encodings -32 to -23 ask for JPEG at a quality; without one, every encoding is lossless. */
const isQuality = (encoding: number): boolean => encoding >= -32 && encoding <= -23;

interface Messages {
  clientEncodings(socket: unknown, encodings: number[]): void;
}

// A desktop is text: what people see must be the pixels that the agent sees. noVNC always asks for JPEG, and its
// quality can be set but not switched off.
const { messages } = RFB as unknown as { messages: Messages };
const { clientEncodings } = messages;
messages.clientEncodings = (socket, encodings) =>
  clientEncodings.call(
    messages,
    socket,
    encodings.filter(encoding => !isQuality(encoding))
  );

export default RFB;
