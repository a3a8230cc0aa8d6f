import * as z from 'zod';
import { figures } from '../documents.js';
import { renderFacts } from '../../render/table.js';
import { counted, formatBytes, formatDuration, formatRate, printable } from '../../render/units.js';
import { text } from '../input.js';
import { defineVerb } from '../verb.js';

export const dumpCore = defineVerb({
  name: 'dump-core',
  summary: 'Writes a core dump of a domain, for a debugger to look into',
  details:
    'An ELF file in the format of xl dump-core. A running domain is paused meanwhile and goes on; one that crashed, is ' +
    'paused or suspended is dumped as it is. The dump cannot be restored.',
  args: [
    { form: '<domain>', says: 'name, id or uuid' },
    { form: '<file>', says: 'the dump to write; must not exist' },
  ],
  options: [],
  examples: [{ command: 'dormouse dump-core web1 web1.core', says: 'web1 stands still while it is written' }],
  document: z.object({
    path: z.string(),
    domid: figures.count,
    name: z.string(),
    vcpus: figures.count,
    pages: figures.count,
    fileBytes: figures.count,
    pauseMs: figures.milliseconds.nullable(),
    elapsedMs: figures.milliseconds,
  }),
  input: z.object({ domain: text, file: text }),
  cancellable: true,
  changes: true,
  async run(context, input) {
    const { domain: selector, file: path } = input;
    const result = await context.withHost((host) =>
      context.withProgress(`dump-core ${selector}`, (options) =>
        context.services.dumpCore(host, selector, path, options),
      ),
    );
    const { name, domid, fileBytes, pages, vcpus, elapsedMs, pauseMs } = result;
    const text = renderFacts([
      ['dumped', `${printable(name)} (domain ${domid})`],
      ['file', `${printable(path)}, ${formatBytes(fileBytes)}`],
      ['holds', `${pages} pages, ${counted(vcpus, 'vCPU')}`],
      ['took', `${formatDuration(elapsedMs)}, ${formatRate(fileBytes, elapsedMs)}`],
      ...(pauseMs === null ? [] : [['paused for', formatDuration(pauseMs)] as const]),
    ]);
    return { document: result, text };
  },
});
