import * as z from 'zod';
import type { Point } from '../../store/domain_points.js';
import { renderTable } from '../../render/table.js';
import { formatBytes, formatCount, formatDuration, printable } from '../../render/units.js';
import { disksWords } from '../disks_option.js';
import { flag, maybeText } from '../input.js';
import { describePoint, pointDocument, storedDomain, storeField, storeOption } from '../store_argument.js';
import { defineVerb } from '../verb.js';

const head = ['POINT', 'DOMAIN', 'SIZE', 'CHANGED', 'PAUSE', 'MODE', 'IMAGE', 'DISKS', ''];

/**
 * Each after the one that it goes on from; of several that go on from one the youngest goes on below it, the older ones are indented
 * before. Points whose parent is gone begin at the left, as those that never had one.
 */
function inTree(points: readonly Point[]): { point: Point; indent: number }[] {
  const known = new Set(points.map(({ id }) => id));
  const after = new Map<string | null, Point[]>();
  for (const point of points) {
    const parent = point.parent !== null && known.has(point.parent) ? point.parent : null;
    after.set(parent, [...(after.get(parent) ?? []), point]);
  }
  const rows: { point: Point; indent: number }[] = [];
  const open = (after.get(null) ?? []).map((point) => ({ point, indent: 0 })).reverse();
  for (let next = open.pop(); next; next = open.pop()) {
    rows.push(next);
    const [youngest, ...older] = (after.get(next.point.id) ?? []).slice().reverse();
    if (youngest) open.push({ point: youngest, indent: next.indent });
    for (const point of older) open.push({ point, indent: next.indent + 1 });
  }
  return rows;
}

function row(point: Point, indent: number): string[] {
  const { id, domain, image, pauseMs, mode, pinned, disks, unfit } = point;
  return [
    `${'  '.repeat(indent)}${id}`,
    printable(domain.name),
    formatBytes(image.storedBytes),
    formatCount(image.changedPages),
    formatDuration(pauseMs),
    mode,
    image.sequence === 0 ? 'whole' : `increment ${formatCount(image.sequence)}`,
    disksWords(disks),
    [pinned ? 'pinned' : '', unfit === '' ? '' : 'not in place'].filter(Boolean).join(', '),
  ];
}

function render(points: readonly Point[], tree: boolean): string {
  if (points.length === 0) return 'no points\n';
  const rows = tree ? inTree(points) : points.map((point) => ({ point, indent: 0 }));
  return renderTable(
    head,
    rows.map(({ point, indent }) => row(point, indent)),
  );
}

export const points = defineVerb({
  name: 'points',
  summary: 'Lists the points of a domain, or of all domains of a store',
  details:
    'SIZE is what the point takes by itself, CHANGED the pages that are not as in the point before. A point is named by its time in UTC or ' +
    'how that begins, `latest`, `latest~2` (the second before it) or `@TIME` (the last one at or before that time). A point that says ' +
    '`not in place` can be restored, but the domain cannot be rolled back to it; --json says why (`unfit`).',
  args: [{ ...storedDomain, form: '[domain]' }],
  options: [
    storeOption,
    { flags: '--tree', says: 'what a domain left behind when it was taken back is indented' },
  ],
  examples: [
    { command: 'dormouse points --store /srv/points web1', says: 'the points of web1, the oldest first' },
    {
      command: 'dormouse points --store /srv/points --json',
      says: 'of all domains, with the paths of images',
    },
  ],
  document: z.object({
    store: z.string(),
    points: z.array(pointDocument.extend({ pinned: z.boolean() })),
  }),
  input: z.object({ domain: maybeText, store: storeField, tree: flag }),
  cancellable: false,
  async run(context, { domain, store, tree }) {
    const found = await context.services.listPoints(store, domain);
    const described = found.map(({ point, path }) => ({
      ...describePoint(point, path),
      pinned: point.pinned,
    }));
    return {
      document: { store, points: described },
      text: render(
        found.map(({ point }) => point),
        tree,
      ),
    };
  },
});
