import {
  argumentWords,
  firstWords,
  guestNames,
  optionWords,
  secondWords,
  valueOptions,
  type CommandLine,
  type Kind,
  type OptionWords,
} from './words.js';

/** In single quotes fish knows two escapes. */
const quoted = (text: string): string => `'${text.replaceAll(/[\\']/gu, (found) => `\\${found}`)}'`;

function candidates(kind: Kind): string {
  if (kind === 'domain') return `-a '(__dormouse_guests)'`;
  if (kind === 'file') return '-F';
  return kind === 'text' ? '' : `-a ${quoted(kind.join(' '))}`;
}

function optionLine(condition: string, { names, says, value }: OptionWords): string {
  const flags = names.map((name) => (name.startsWith('--') ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`));
  const wanted = value === undefined ? '' : ` ${value === 'file' ? '-r' : '-x'} ${candidates(value)}`;
  return `complete -c dormouse ${condition} ${flags.join(' ')}${wanted} -d ${quoted(says)}`;
}

function wordLine(condition: string, [word, says]: readonly [string, string]): string {
  return `complete -c dormouse ${condition} -a ${word} -d ${quoted(says)}`;
}

/** A script to be sourced by fish. */
export function fishCompletion(line: CommandLine): string {
  const lines = line.globalOptions.map((option) => optionLine('', optionWords(option)));
  lines.push(...firstWords(line).map((word) => wordLine(`-n '__dormouse_at'`, word)));
  for (const group of Object.keys(line.groups))
    lines.push(...secondWords(line, group).map((word) => wordLine(`-n '__dormouse_at ${group}'`, word)));
  for (const verb of line.verbs) {
    const condition = `-n '__dormouse_in "${verb.name}"'`;
    lines.push(...verb.options.map((option) => optionLine(condition, optionWords(option))));
    const kinds = verb.args.map((arg) => candidates(argumentWords(arg).kind)).filter((text) => text !== '');
    lines.push(...[...new Set(kinds)].map((text) => `complete -c dormouse ${condition} ${text}`));
  }
  return `# Completion of dormouse for fish: dormouse completion fish | source
function __dormouse_guests
    ${guestNames}
end
# The words so far that are neither options nor their values.
function __dormouse_words
    set -l skip 0
    for word in (commandline -opc)[2..-1]
        if test $skip = 1
            set skip 0
            continue
        end
        switch $word
            case ${valueOptions(line).join(' ')}
                set skip 1
            case '-*'
            case '*'
                echo $word
        end
    end
end
function __dormouse_at
    set -l words (__dormouse_words)
    test "$words" = "$argv[1]"
end
function __dormouse_in
    set -l words (__dormouse_words)
    string match -q -- "$argv[1] *" "$words "
end
complete -c dormouse -f
${lines.join('\n')}
`;
}
