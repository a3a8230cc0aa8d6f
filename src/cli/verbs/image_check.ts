import * as z from 'zod';
import type { CheckResult } from '../../restore/check.js';
import { renderFacts } from '../../render/table.js';
import { counted, printable } from '../../render/units.js';
import { restoreChoices, trustFields, trustOptions, typedOf } from '../restore_choices.js';
import { text } from '../input.js';
import { defineVerb } from '../verb.js';

const signers = {
  trusted: 'a key trusted here',
  unknown: 'a key not trusted here',
  unsigned: 'nobody',
} as const;

function render(checked: CheckResult): string {
  const { findings } = checked;
  const id = checked.from === 'dormouse' ? checked.imageId : 'a file of xl save';
  const facts = renderFacts([
    ['image', checked.name === null || id === null ? 'unreadable' : `${printable(checked.name)}, ${id}`],
    ['signed by', checked.signer === null ? 'cannot be told' : signers[checked.signer]],
    [
      'result',
      findings.length === 0
        ? 'can be restored'
        : `CANNOT BE RESTORED, ${counted(findings.length, 'finding')}`,
    ],
  ]);
  const lines = findings.flatMap(({ code, message, details }) => [
    `${code}: ${message}`,
    ...details.map((line) => `  ${line}`),
  ]);
  return facts + lines.map((line) => `${printable(line)}\n`).join('');
}

export const imageCheck = defineVerb({
  name: 'image check',
  summary: 'Says whether an image could be restored here and now',
  details:
    'Looks at format, signature and configuration, processor features, memory, name and disks, makes nothing, and reads no ' +
    'pages (image verify does). Exit code 3 with all that stands against it, also that it is damaged or an image is missing ' +
    'that it needs. A file of xl save becomes a temporary image.',
  args: [{ form: '<file>', says: 'an image, or a file of xl save' }],
  options: [
    {
      flags: '--scratch <folder>',
      says: 'where the temporary image of an xl save file goes (default: beside it)',
    },
    ...trustOptions,
  ],
  examples: [
    { command: 'dormouse image check web1.dmi', says: 'before the host it came from is switched off' },
    {
      command: 'dormouse image check --host xen --json web1.dmi',
      says: 'for a program that looks over a store',
    },
  ],
  document: z.object({
    path: z.string(),
    from: z.enum(['dormouse', 'xl', 'xl-gzip']),
    imageId: z.string().nullable(),
    name: z.string().nullable(),
    restorable: z.boolean(),
    signer: z.enum(['trusted', 'unknown', 'unsigned']).nullable(),
    findings: z.array(z.object({ code: z.string(), message: z.string(), details: z.array(z.string()) })),
  }),
  input: z.object({ file: text, ...trustFields }),
  cancellable: true,
  async run(context, input) {
    const { file: path } = input;
    const checked = await context.withHost(async (host) => {
      const chosen = await restoreChoices(context, host, input, await typedOf(context, input, [path]));
      return context.withProgress(`check ${path}`, (options) =>
        context.services.checkImage(host, path, { ...options, ...chosen }),
      );
    });
    const restorable = checked.findings.length === 0;
    return {
      document: { ...checked, restorable },
      text: render(checked),
      exitCode: restorable ? 0 : 3,
    };
  },
});
