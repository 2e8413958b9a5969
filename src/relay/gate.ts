/** Where whoever brings something waits until there is room for it. */
export class Gate {
  readonly #hasRoom: () => boolean;
  #waiting: (() => void)[] = [];
  #open = false;

  constructor(hasRoom: () => boolean) {
    this.#hasRoom = hasRoom;
  }

  get free(): boolean {
    return this.#open || this.#hasRoom();
  }

  /** Settles once there is room. */
  async wait(): Promise<void> {
    while (!this.free) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** Something went: perhaps there is room. */
  look(): void {
    if (this.#waiting.length > 0 && this.free) this.#letIn();
  }

  /** From now on nobody waits. */
  open(): void {
    this.#open = true;
    this.#letIn();
  }

  #letIn(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
