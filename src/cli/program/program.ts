/** Builds the parser from the verb table. */
import { Argument, Command, Option } from 'commander';
import { exitCodes } from '../../errors.js';
import { version } from '../../version.js';
import type { Globals } from '../context.js';
import { globalOptions } from '../global_options.js';
import type { Verb, VerbArgument, VerbInput, VerbOption } from '../verb.js';
import { groups, verbs } from './verbs.js';

export interface Chosen {
  readonly verb: Verb;
  readonly input: VerbInput;
  readonly globals: Globals;
}

const exitCodeLines = Object.entries(exitCodes).map(([code, says]) => `  ${code.padEnd(5)}${says}`);

/** Text after a verb's own help. */
function helpTail(verb: Verb): string {
  const width = Math.max(...verb.examples.map(({ command }) => command.length));
  const lines = verb.examples.map(({ command, says }) => `  ${command.padEnd(width)}  ${says}`);
  return `\nExamples:\n${lines.join('\n')}`;
}

function parseGlobals(options: Record<string, unknown>): Globals {
  return {
    json: options.json === true,
    quiet: options.quiet === true,
    verbose: options.verbose === true,
    progress: options.progress !== false,
    host: typeof options.host === 'string' ? options.host : undefined,
  };
}

function option({ flags, says, choices }: VerbOption): Option {
  const made = new Option(flags, says);
  return choices === undefined ? made : made.choices(choices);
}

function argument({ form, says, choices }: VerbArgument): Argument {
  const made = new Argument(form, says);
  return choices === undefined ? made : made.choices(choices);
}

function addVerb(parent: Command, verb: Verb, choose: (chosen: Chosen) => void): void {
  const command = parent.command(verb.name.split(' ').at(-1) ?? verb.name).summary(verb.summary);
  command.description(verb.details === undefined ? verb.summary : `${verb.summary}\n\n${verb.details}`);
  for (const given of verb.args) command.addArgument(argument(given));
  for (const given of verb.options) command.addOption(option(given));
  command.addHelpText('after', helpTail(verb));
  command.action(() => {
    const options = command.opts<VerbInput['options']>();
    choose({
      verb,
      input: { args: command.processedArgs as VerbInput['args'], options },
      globals: parseGlobals(command.optsWithGlobals()),
    });
  });
}

export interface Output {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
}

/** A parser that calls `choose` with the verb, writes help to `output`, and throws CommanderError for the rest. */
export function buildProgram(choose: (chosen: Chosen) => void, output: Output): Command {
  const program = new Command('dormouse');
  program
    .description('Saves, restores and live-checkpoints Xen domains')
    .version(version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .helpCommand(false)
    .configureOutput({ writeOut: output.out, writeErr: output.err, outputError: () => undefined })
    .exitOverride()
    .configureHelp({ showGlobalOptions: true })
    .addHelpText(
      'after',
      `\nExit codes:\n${exitCodeLines.join('\n')}\n\n\`dormouse VERB --help\` shows each verb with examples.`,
    );
  for (const given of globalOptions) program.addOption(option(given));
  const parents = new Map<string, Command>();
  for (const [name, summary] of Object.entries(groups))
    parents.set(name, new Command(name).copyInheritedSettings(program).description(summary));
  for (const verb of verbs) {
    const [first = '', second] = verb.name.split(' ');
    const parent = second === undefined ? program : parents.get(first);
    if (!parent) throw new TypeError(`no group ${first}`);
    if (parent !== program && !program.commands.includes(parent)) program.addCommand(parent);
    addVerb(parent, verb, choose);
  }
  return program;
}
