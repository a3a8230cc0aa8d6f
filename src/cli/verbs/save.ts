import * as z from 'zod';
import { compressions } from '../../codec/compression.js';
import type { Then } from '../../capture/after_commit.js';
import { DormouseError } from '../../errors.js';
import { compressionField, compressionOption } from '../compression_option.js';
import { downtime, figures, pageCounts, phases } from '../documents.js';
import { renderSaved } from '../../render/summary.js';
import { flag, maybeSeconds, maybeText, text } from '../input.js';
import { defineVerb, given } from '../verb.js';

const input = z.object({
  ...{ domain: text, file: text, checkpoint: flag, paused: flag },
  ...{ incrementalFrom: maybeText, compression: compressionField, suspendTimeout: maybeSeconds },
});

function afterwards({ checkpoint: resume, paused }: z.output<typeof input>): Then {
  if (resume && paused) throw new DormouseError('USAGE', '-c and -p exclude each other');
  if (resume) return 'resume';
  return paused ? 'pause' : 'destroy';
}

export const save = defineVerb({
  name: 'save',
  summary: 'Saves a domain into a new image file',
  details:
    'The guest is asked to suspend, its memory and state are written, then it is torn down (or -c, -p).\n' +
    'FILE must not exist. If anything fails before FILE is there, the guest runs on and no file is left; ' +
    'after that FILE is kept (NOT_SETTLED, exit code 21).\n' +
    '--incremental-from: FILE then needs that image, and all that it needs itself, beside it under their names.',
  args: [
    { form: '<domain>', says: 'name, id or uuid' },
    { form: '<file>', says: 'the image to write; must not exist' },
  ],
  options: [
    { flags: '-c, --checkpoint', says: 'leave the domain running after the save' },
    { flags: '-p, --paused', says: 'leave the domain paused after the save' },
    {
      flags: '--incremental-from <image>',
      says: 'store only what is not the same in that image, of the same folder',
    },
    compressionOption,
    { flags: '--suspend-timeout <seconds>', says: 'how long the guest may take to suspend (default: 60)' },
  ],
  examples: [
    { command: 'dormouse save web1 web1.dmi', says: 'save web1 and end it here' },
    { command: 'dormouse save -c web1 web1.dmi', says: 'save it and let it go on' },
  ],
  document: z.object({
    path: z.string(),
    imageId: z.string(),
    parent: z.string().nullable(),
    compression: z.enum(compressions),
    domid: figures.count,
    name: z.string(),
    paused: z.boolean(),
    then: z.enum(['destroy', 'resume', 'pause']),
    counts: pageCounts,
    memoryBytes: figures.count,
    storedBytes: figures.count,
    elapsedMs: figures.milliseconds,
    standstillMs: figures.milliseconds.nullable(),
    phases,
    downtime: downtime.nullable(),
  }),
  input,
  cancellable: true,
  changes: true,
  async run(context, typed) {
    const { domain: selector, file: path, compression, incrementalFrom } = typed;
    const { suspendTimeout: suspendTimeoutMs } = typed;
    const then = afterwards(typed);
    const result = await context.withHost((host) =>
      context.withProgress(`save ${selector}`, (options) =>
        context.services.save(host, selector, path, {
          ...options,
          ...given({ compression, incrementalFrom, suspendTimeoutMs }),
          then,
        }),
      ),
    );
    const ending = then === 'destroy' ? 'ended here' : result.paused ? 'left paused' : 'runs on';
    const pause = ['stood still', result.standstillMs] as const;
    const text = renderSaved('saved', result, ending, pause, context.globals.verbose);
    const guest = then === 'destroy' ? 'gone' : result.paused ? 'paused' : 'running';
    return { document: { ...result, then }, text, guest };
  },
});
