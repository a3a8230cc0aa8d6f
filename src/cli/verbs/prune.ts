import * as z from 'zod';
import { DormouseError } from '../../errors.js';
import { hasRules } from '../../store/retention.js';
import { renderFacts, renderTable } from '../../render/table.js';
import { counted, formatBytes } from '../../render/units.js';
import { keeperField, keeperOption } from '../disks_option.js';
import { figures } from '../documents.js';
import { flag, text, texts } from '../input.js';
import {
  retentionFields,
  retentionOf,
  retentionOptions,
  storedDomain,
  storeField,
  storeOption,
} from '../store_argument.js';
import { defineVerb, given } from '../verb.js';

export const prune = defineVerb({
  name: 'prune',
  summary: 'Forgets points of a domain, and removes the images that no other point needs',
  details:
    'Points that no --keep rule keeps are forgotten, and those that are named. Without either only what killed tools have left is ' +
    'removed. Pinned points stay. An image goes when no point is built on it any more, so less room may come free ' +
    'than the points took; its disks go with it. If anything of the store that counts cannot be read, nothing is removed (STORE_DAMAGED).',
  args: [storedDomain, { form: '[points...]', says: 'points to forget, whatever the rules say' }],
  options: [
    storeOption,
    ...retentionOptions,
    { flags: '--dry-run', says: 'only say what would go' },
    keeperOption,
  ],
  examples: [
    {
      command: 'dormouse prune web1 --store /srv/points --keep-last 60 --keep-hourly 48 --dry-run',
      says: 'what these rules would leave',
    },
    { command: 'dormouse prune web1 20261122-183512.123 --store /srv/points', says: 'one point' },
  ],
  document: z.object({
    dryRun: z.boolean(),
    forgotten: z.array(z.string()),
    kept: z.array(z.object({ point: z.string(), by: z.array(z.string()) })),
    removedImages: z.array(z.string()),
    freedBytes: figures.count,
    removedDisks: z.array(z.string()),
    stuck: z.array(z.string()),
  }),
  input: z.object({
    domain: text,
    points: texts,
    store: storeField,
    dryRun: flag,
    disks: keeperField,
    ...retentionFields,
  }),
  changes: true,
  cancellable: false,
  async run(context, input) {
    const { domain, points, store, dryRun, disks: program } = input;
    const retention = retentionOf(input);
    if (hasRules(retention) && points.length > 0)
      throw new DormouseError('USAGE', 'points are named, or --keep rules are given: not both');
    const pruned = await context.services.prunePoints(store, domain, {
      ...{ retention, also: points, dryRun },
      ...given({ program }),
    });
    const { forgotten, removed, freedBytes, removedDisks, stuck } = pruned;
    for (const words of stuck) context.warn(words);
    const kept = pruned.kept.map(({ id, by }) => ({ point: id, by: [...by] }));
    const text = renderFacts([
      [dryRun ? 'would forget' : 'forgotten', counted(forgotten.length, 'point')],
      [
        dryRun ? 'would remove' : 'removed',
        `${counted(removed.length, 'image')}, ${formatBytes(freedBytes)}`,
      ],
      ['  and', removedDisks.length === 0 ? undefined : counted(removedDisks.length, 'disk')],
      ['kept', counted(kept.length, 'point')],
    ]);
    const table =
      kept.length === 0
        ? ''
        : renderTable(
            ['POINT', 'KEPT BY'],
            kept.map(({ point, by }) => [point, by.join(', ')]),
          );
    const gone = {
      removedImages: [...removed],
      freedBytes,
      removedDisks: [...removedDisks],
      stuck: [...stuck],
    };
    const document = { dryRun, forgotten: [...forgotten], kept, ...gone };
    return { document, text: dryRun ? text + table : text };
  },
});
