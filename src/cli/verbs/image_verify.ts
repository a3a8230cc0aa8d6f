import * as z from 'zod';
import type { Finding } from '../../image/verify.js';
import { figures } from '../documents.js';
import { imageArgument } from '../image_argument.js';
import { renderFacts } from '../../render/table.js';
import { counted, formatBytes, formatCount, printable } from '../../render/units.js';
import { text } from '../input.js';
import { defineVerb } from '../verb.js';

const mostRunsShown = 8;

/** `chunk 3, offset 8192, pfns 0-255 512: what` */
function renderFinding(finding: Finding): string {
  const runs = (finding.pfns ?? []).map(([first, count]) =>
    count === 1 ? String(first) : `${first}-${first + count - 1}`,
  );
  const hidden = runs.length - mostRunsShown;
  const shown = [...runs.slice(0, mostRunsShown), ...(hidden > 0 ? [`and ${hidden} more runs`] : [])].join(
    ' ',
  );
  const place = [
    ...(finding.path === undefined ? [] : [printable(finding.path)]),
    ...(finding.chunk === undefined ? [] : [`chunk ${finding.chunk}`]),
    ...(finding.offset === undefined ? [] : [`offset ${finding.offset}`]),
    ...(shown === '' ? [] : [`pfns ${shown}`]),
  ].join(', ');
  return `${place === '' ? '' : `${place}: `}${printable(finding.what)}\n`;
}

export const imageVerify = defineVerb({
  name: 'image verify',
  summary: 'Reads every byte of an image and says what is damaged',
  details:
    'Of an increment the ancestors that it rests on are read too; they are looked for in its folder.\n' +
    'Exit code 3 if anything is damaged, with chunk, pfns and offset of each finding; 0 if the image is whole.',
  args: [{ form: '<file>', says: 'the image' }],
  options: [],
  examples: [{ command: 'dormouse image verify web1.dmi && echo whole', says: 'before it is relied upon' }],
  document: z.object({
    path: z.string(),
    whole: z.boolean(),
    imageId: z.string().nullable(),
    root: z.string().nullable(),
    bytesRead: figures.count,
    chunksChecked: figures.count,
    blocksDecoded: figures.count,
    nrPfns: figures.count,
    ancestors: z.array(z.string()),
    contentRootCompared: z.boolean().nullable(),
    findings: z.array(
      z.object({
        what: z.string(),
        path: z.string().optional(),
        chunk: figures.count.optional(),
        offset: figures.count.optional(),
        pfns: z.array(z.tuple([figures.count, figures.count])).optional(),
      }),
    ),
    more: figures.count,
  }),
  input: z.object({ file: text }),
  cancellable: true,
  async run(context, input) {
    const path = await imageArgument(context, input.file);
    const report = await context.withByteProgress(`verify ${path}`, (options) =>
      context.services.verifyImage(path, options),
    );
    const count = report.findings.length + report.more;
    const whole = count === 0;
    const text = renderFacts([
      ['image', report.imageId ?? 'unreadable'],
      ['read', `${formatBytes(report.bytesRead)}, ${formatCount(report.chunksChecked)} chunks`],
      ['pages', formatCount(report.nrPfns)],
      ['ancestors', report.ancestors.length === 0 ? undefined : formatCount(report.ancestors.length)],
      [
        'content root',
        report.contentRootCompared === false ? 'not compared: few of its pages are stored' : undefined,
      ],
      ['result', whole ? 'whole' : `DAMAGED, ${counted(count, 'finding')}`],
    ]);
    const findings = report.findings.map(renderFinding).join('');
    const rest = report.more > 0 ? `and ${formatCount(report.more)} more\n` : '';
    return {
      document: { ...report, ancestors: [...report.ancestors], whole },
      text: text + findings + rest,
      exitCode: whole ? 0 : 3,
    };
  },
});
