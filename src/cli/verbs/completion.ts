import * as z from 'zod';
import { bashCompletion } from '../completion/bash.js';
import { fishCompletion } from '../completion/fish.js';
import type { CommandLine } from '../completion/words.js';
import { zshCompletion } from '../completion/zsh.js';
import { defineVerb, type Verb } from '../verb.js';

const scripts = { bash: bashCompletion, zsh: zshCompletion, fish: fishCompletion };
const shells = ['bash', 'zsh', 'fish'] as const;

/** The verb for a command line, itself included: `line` is called when it runs. */
export function completion(line: () => CommandLine): Verb {
  return defineVerb({
    name: 'completion',
    summary: 'Prints a script that has a shell complete verbs, options, domains and files',
    args: [{ form: '<shell>', says: shells.join(', '), choices: shells }],
    options: [],
    examples: [
      { command: 'dormouse completion bash', says: 'in ~/.bashrc: source <(dormouse completion bash)' },
      {
        command: 'dormouse completion zsh',
        says: 'in ~/.zshrc, after compinit: source <(dormouse completion zsh)',
      },
      { command: 'dormouse completion fish', says: 'in config.fish: dormouse completion fish | source' },
    ],
    document: z.object({ shell: z.enum(shells), script: z.string() }),
    input: z.object({ shell: z.enum(shells) }),
    cancellable: false,
    run(_context, { shell }) {
      const script = scripts[shell](line());
      return Promise.resolve({ document: { shell, script }, text: script });
    },
  });
}
