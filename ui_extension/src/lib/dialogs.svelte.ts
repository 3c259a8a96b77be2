// Questions before something is done, and words about what was done.
export interface Question {
  title: string;
  text: string;
  verb: string;
  danger?: boolean;
  // Ask for a reason, which stays in the history.
  why?: boolean;
  choices?: { name: string; label: string; options: { value: string; text: string }[] };
}

export interface Reply {
  why: string;
  choice: string;
}

export const asked = $state<{ now: (Question & { reply: (reply: Reply | null) => void }) | null }>({ now: null });
export const said = $state<{ now: { text: string; bad: boolean; number: number } | null }>({ now: null });
let number = 0;

export function ask(question: Question): Promise<Reply | null> {
  return new Promise((resolve) => {
    asked.now = {
      ...question,
      reply: (reply) => {
        asked.now = null;
        resolve(reply);
      },
    };
  });
}

export function say(text: string, bad = false): void {
  number += 1;
  const mine = number;
  said.now = { text, bad, number: mine };
  setTimeout(
    () => {
      if (said.now?.number === mine) said.now = null;
    },
    bad ? 12_000 : 5_000,
  );
}

// Do it, and say how it went; whether it went well.
export async function attempt(what: () => Promise<unknown>, done: string): Promise<boolean> {
  try {
    await what();
    say(done);
    return true;
  } catch (error) {
    say(error instanceof Error ? error.message : String(error), true);
    return false;
  }
}
