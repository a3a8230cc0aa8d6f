import {
  argumentWords,
  firstWords,
  guestNames,
  optionsOf,
  optionWords,
  quoted,
  secondWords,
  valueOptions,
  type CommandLine,
  type Kind,
  type OptionWords,
} from './words.js';

/** A statement that leaves in `words` what may come; where they are empty bash offers files. */
function offer(kind: Kind): string {
  if (kind === 'domain') return 'mapfile -t words < <(_dormouse_guests)';
  return typeof kind === 'string' ? 'words=()' : `words=${list(kind)}`;
}

/** An array: a word is never read again as shell, whatever a guest is called. */
const list = (words: readonly string[]): string => `(${words.map(quoted).join(' ')})`;

function positions(args: readonly { kind: Kind; repeats: boolean }[]): string {
  const cases = args.flatMap(({ kind, repeats }, at) =>
    kind === 'file' || kind === 'text' ? [] : [`${repeats ? '*' : at}) ${offer(kind)} ;;`],
  );
  return cases.length === 0 ? '' : ` case $at in ${cases.join(' ')} esac ;`;
}

/** Cases of what follows an option that takes a value. */
function values(verb: string, options: readonly OptionWords[]): string[] {
  return options.flatMap(({ names, value }) =>
    value === undefined ? [] : names.map((name) => `    ${verb}' ${name}') ${offer(value)} ;;`),
  );
}

/** A script to be sourced by bash. */
export function bashCompletion(line: CommandLine): string {
  const groups = Object.keys(line.groups);
  const names = (words: readonly (readonly [string, string])[]): string => list(words.map(([word]) => word));
  const after = [
    ...line.verbs.flatMap((verb) => values(quoted(verb.name), verb.options.map(optionWords))),
    ...values('*', line.globalOptions.map(optionWords)),
  ];
  const verbs = line.verbs.map((verb) => {
    const options = optionsOf(verb, line).flatMap((option) => option.names);
    return `    ${quoted(verb.name)}) options=${list(options)} ;${positions(verb.args.map(argumentWords))};`;
  });
  return `# Completion of dormouse for bash: source <(dormouse completion bash)
_dormouse_guests() { ${guestNames}; }
_dormouse() {
  local cur=\${COMP_WORDS[COMP_CWORD]} verb= at=0 i word words=() options=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    case $word in
      ${valueOptions(line).join('|')}) i=$((i + 1)) ;;
      -*) ;;
      *) case $verb in ''|${groups.join('|')}) verb="\${verb:+$verb }$word" ;; *) at=$((at + 1)) ;; esac ;;
    esac
  done
  case $verb in
    '') words=${names(firstWords(line))} ;;
${groups.map((group) => `    ${group}) words=${names(secondWords(line, group))} ;;`).join('\n')}
${verbs.join('\n')}
  esac
  [[ $cur != -* ]] || words=("\${options[@]}")
  case "$verb \${COMP_WORDS[COMP_CWORD - 1]}" in
${after.join('\n')}
  esac
  COMPREPLY=()
  for word in "\${words[@]}"; do
    [[ $word != "$cur"* ]] || COMPREPLY+=("$(printf %q "$word")")
  done
}
complete -o bashdefault -o default -F _dormouse dormouse
`;
}
