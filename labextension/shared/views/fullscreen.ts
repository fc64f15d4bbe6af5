/** Shows `element` on the whole screen, or leaves that mode. A browser may refuse (a frame without permission). */
export async function toggleFullScreen(element: Element): Promise<void> {
  try {
    if (document.fullscreenElement) await document.exitFullscreen();
    else await element.requestFullscreen();
  } catch {
    // Refused: the page stays as it is, which is what the person sees.
  }
}
