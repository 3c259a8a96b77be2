// What is asked again and again while somebody looks: not when the page is hidden, not when it has been left.
import { ApiError } from "../api/client";

export class Poll<T> {
  data = $state.raw<T | undefined>(undefined);
  error = $state.raw<ApiError | undefined>(undefined);
  // When the last good answer came, by this browser's clock.
  at = $state<number>(0);
  #ask: () => Promise<T>;
  #every: () => number;
  #timer = 0;
  #turn = 0;

  // Call it while a component is made. `ask` is asked again at once when anything changes that it reads first.
  constructor(ask: () => Promise<T>, every_s: number | (() => number)) {
    this.#ask = ask;
    this.#every = typeof every_s === "number" ? () => every_s : every_s;
    $effect(() => {
      const seen = () => {
        if (document.visibilityState === "visible") void this.again();
        else clearTimeout(this.#timer);
      };
      document.addEventListener("visibilitychange", seen);
      void this.again();
      return () => {
        document.removeEventListener("visibilitychange", seen);
        clearTimeout(this.#timer);
        this.#turn += 1;
      };
    });
  }

  async again(): Promise<void> {
    clearTimeout(this.#timer);
    this.#turn += 1;
    const turn = this.#turn;
    try {
      const data = await this.#ask();
      if (turn !== this.#turn) return;
      this.data = data;
      this.error = undefined;
      this.at = Date.now();
    } catch (error) {
      if (turn !== this.#turn) return;
      this.error = error instanceof ApiError ? error : new ApiError(0, String(error));
    }
    if (document.visibilityState !== "visible") return;
    // Who is refused is not let in by asking more often.
    const wait = this.error && this.error.status >= 400 && this.error.status < 500 ? 30 : this.#every();
    if (wait > 0) this.#timer = window.setTimeout(() => void this.again(), wait * 1000);
  }
}

// The time, for what is said relative to it.
export const clock = $state({ now: Date.now() });
setInterval(() => {
  if (document.visibilityState === "visible") clock.now = Date.now();
}, 1000);
