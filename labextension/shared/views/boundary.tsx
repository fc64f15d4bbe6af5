import { Component, type ComponentChildren } from 'preact';
import { trans } from '../language';

interface Props {
  /** What could not be drawn, for example "This step". */
  what: string;
  children: ComponentChildren;
}

/** Draws its children, or one line in their place when they throw: one odd step must not take Stop and End away. */
export class Boundary extends Component<Props, { failed: boolean }> {
  override state = { failed: false };

  static override getDerivedStateFromError(): { failed: boolean } {
    return { failed: true };
  }

  override componentDidCatch(error: unknown): void {
    console.error('cambio_lab: a part of the panel could not be drawn', error);
  }

  override render(): ComponentChildren {
    if (!this.state.failed) return this.props.children;
    return <p class="jp-Cambio-note jp-Cambio-dim">{trans.__('%1 cannot be shown.', this.props.what)}</p>;
  }
}
