import * as z from 'zod';
import type { Point } from '../../store/domain_points.js';
import { renderTable } from '../../render/table.js';
import { formatBytes, formatCount, formatDuration, printable } from '../../render/units.js';
import { flag, maybeText } from '../input.js';
import { describePoint, pointDocument, storeField, storeOption } from '../store_argument.js';
import { defineVerb } from '../verb.js';

const head = ['POINT', 'DOMAIN', 'SIZE', 'CHANGED', 'PAUSE', 'MODE', 'IMAGE', ''];

/** Points whose parent is gone begin at the left, as those that never had one. */
function depths(points: readonly Point[]): Map<string, number> {
  const children = new Map<string, number>();
  for (const { parent } of points) if (parent !== null) children.set(parent, (children.get(parent) ?? 0) + 1);
  const depth = new Map<string, number>();
  for (const { id, parent } of points) {
    const above = parent === null ? undefined : depth.get(parent);
    // A line without branches stays where it is.
    const branches = parent !== null && (children.get(parent) ?? 0) > 1;
    depth.set(id, above === undefined ? 0 : above + (branches ? 1 : 0));
  }
  return depth;
}

function row(point: Point, indent: number): string[] {
  const { id, domain, image, pauseMs, mode, pinned } = point;
  return [
    `${'  '.repeat(indent)}${id}`,
    printable(domain.name),
    formatBytes(image.storedBytes),
    formatCount(image.changedPages),
    formatDuration(pauseMs),
    mode,
    image.sequence === 0 ? 'whole' : `increment ${formatCount(image.sequence)}`,
    pinned ? 'pinned' : '',
  ];
}

function render(points: readonly Point[], tree: boolean): string {
  if (points.length === 0) return 'no points\n';
  const depth = depths(points);
  return renderTable(
    head,
    points.map((point) => row(point, tree ? (depth.get(point.id) ?? 0) : 0)),
  );
}

export const points = defineVerb({
  name: 'points',
  summary: 'Lists the points of a domain, or of all domains of a store',
  details:
    'SIZE is what the point takes by itself, CHANGED the pages that are not as in the point before. A point is named by its time in UTC or ' +
    'how that begins, `latest`, `latest~2` (the second before it) or `@TIME` (the last one at or before that time).',
  args: [{ form: '[domain]', says: 'its uuid, or the name that it had at its last point' }],
  options: [
    storeOption,
    { flags: '--tree', says: 'what went on from a point that others went on from is indented' },
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
