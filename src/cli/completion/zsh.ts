import {
  argumentWords,
  firstWords,
  guestNames,
  optionsOf,
  quoted,
  secondWords,
  type ArgumentWords,
  type CommandLine,
  type Kind,
  type OptionWords,
} from './words.js';

const escaped = (text: string): string => text.replaceAll(/[[\]:\\]/gu, (found) => `\\${found}`);

/** What comes after the last colon of an _arguments specification. */
function action(kind: Kind): string {
  if (kind === 'domain') return '_dormouse_guests';
  if (kind === 'file') return '_files';
  return kind === 'text' ? ' ' : `(${kind.join(' ')})`;
}

function optionSpec({ names, says, value }: OptionWords): string {
  const tail = quoted(`[${escaped(says)}]${value === undefined ? '' : `:value:${action(value)}`}`);
  return names.length === 1
    ? `${names[0] ?? ''}${tail}`
    : `${quoted(`(${names.join(' ')})`)}{${names.join(',')}}${tail}`;
}

function argumentSpec({ says, kind, repeats }: ArgumentWords, at: number): string {
  return quoted(`${repeats ? '*' : at + 1}:${escaped(says)}:${action(kind)}`);
}

function describe(words: readonly (readonly [string, string])[]): string {
  const all = words.map(([word, says]) => quoted(`${word}:${escaped(says)}`));
  return `local -a known=(${all.join(' ')}); _describe verb known`;
}

/** A script to be sourced by zsh, or put into a folder of its fpath as _dormouse. */
export function zshCompletion(line: CommandLine): string {
  const groups = Object.keys(line.groups);
  const verbs = line.verbs.map((verb) => {
    const specs = [
      ...optionsOf(verb, line).map(optionSpec),
      ...verb.args.map(argumentWords).map(argumentSpec),
    ];
    return `    ${quoted(verb.name)}) _arguments ${specs.join(' ')} ;;`;
  });
  return `#compdef dormouse
# Completion of dormouse for zsh: source <(dormouse completion zsh)
_dormouse_guests() {
  local -a guests=(\${(f)"$(${guestNames})"})
  compadd -a guests
}
_dormouse() {
  if (( CURRENT == 2 )); then
    ${describe(firstWords(line))}
    return
  fi
  local verb=\${words[2]}
  case $verb in
    ${groups.join('|')})
      if (( CURRENT == 3 )); then
        case $verb in
${groups.map((group) => `          ${group}) ${describe(secondWords(line, group))} ;;`).join('\n')}
        esac
        return
      fi
      verb="$verb \${words[3]}"
      shift words
      (( CURRENT-- )) ;;
  esac
  shift words
  (( CURRENT-- ))
  case $verb in
${verbs.join('\n')}
  esac
}
if [[ \${funcstack[1]} == _dormouse ]]; then _dormouse "$@"; else compdef _dormouse dormouse; fi
`;
}
