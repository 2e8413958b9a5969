/** Makes producers wait until there is room. */
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

  get isWaitedFor(): boolean {
    return this.#waiting.length > 0;
  }

  /** Resolves once there is room. */
  async wait(): Promise<void> {
    while (!this.free) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** To be called whenever there may be room again. Returns whether nobody waits any more. */
  recheck(): boolean {
    if (this.#waiting.length > 0 && this.free) this.#releaseAll();
    return this.#waiting.length === 0;
  }

  /** From now on no producer waits. */
  open(): void {
    this.#open = true;
    this.#releaseAll();
  }

  #releaseAll(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
