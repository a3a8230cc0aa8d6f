import { Buffer } from 'node:buffer';
import * as z from 'zod';
import type { DiskOfPoint } from '../../diff/disk_diff.js';
import type { PointDiff } from '../../diff/points.js';
import { classNames } from '../../pfn/counts.js';
import type { PfnRun } from '../../pfn/pfn_runs.js';
import { heatMap, heatMapPng } from '../../render/heat_map.js';
import { classWords } from '../../render/progress.js';
import { renderFacts } from '../../render/table.js';
import { counted, formatBytes, formatCount, formatDuration, printable } from '../../render/units.js';
import { figures } from '../documents.js';
import { maybeText, text } from '../input.js';
import { storedDomain, storeField, storeOption, typedPoint } from '../store_argument.js';
import { defineVerb } from '../verb.js';

const mostShown = 8;

const pageClass = z.enum(classNames).exclude(['absent', 'sameAsParent']);
const diskOfPoint = z.object({ path: z.string(), bytes: figures.count, kind: z.string() }).nullable();
const document = z.object({
  from: z.string(),
  to: z.string(),
  name: z.string(),
  nrPfns: figures.count,
  differingPages: figures.count,
  pages: z.array(
    z.object({
      from: pageClass,
      to: pageClass,
      count: figures.count,
      runs: z.array(z.tuple([figures.count, figures.count])),
    }),
  ),
  vcpus: z.array(
    z.object({
      vcpu: figures.count,
      online: z.enum(['both', 'from', 'to']),
      registers: z.array(z.object({ name: z.string(), from: z.string(), to: z.string() })),
      other: z.array(z.string()),
    }),
  ),
  state: z.array(z.string()),
  links: z.object({
    heldBy: z.enum(['both', 'from', 'to', 'none']),
    unfit: z.object({ from: z.string().nullable(), to: z.string().nullable() }),
    devices: z.array(z.string()),
    ports: z.array(figures.count),
    ringPfns: z.array(figures.count),
    other: z.array(z.string()),
  }),
  disks: z.array(z.object({ name: z.string(), from: diskOfPoint, to: diskOfPoint })),
  map: z.string().nullable(),
  elapsedMs: figures.milliseconds,
});

const words = new Map<string, string>(classWords);

/** `data`, `zero to data`. */
function classesOf({ from, to }: PointDiff['pages'][number]): string {
  const [was, is] = [words.get(from) ?? from, words.get(to) ?? to];
  return was === is ? is : `${was} to ${is}`;
}

const renderRun = ([first, count]: PfnRun): string =>
  count === 1 ? String(first) : `${first}-${first + count - 1}`;

/** The first of them, and how many more there are. */
function some(all: readonly string[], what: string): string {
  const more = all.length - mostShown;
  return all.slice(0, mostShown).join(', ') + (more > 0 ? ` and ${counted(more, `more ${what}`)}` : '');
}

function renderVcpus({ vcpus }: PointDiff): (readonly [string, string])[] {
  return vcpus.map(({ vcpu, online, registers, other }) => {
    const named = registers.map(({ name, from, to }) => `${name} ${from} to ${to}`);
    const said = online === 'both' ? [...named, ...other].join(', ') : `only in ${online}`;
    return [`vCPU ${vcpu}`, printable(said)] as const;
  });
}

/** Of an image without any, as of a suspended guest, nothing is said if the other has none either. */
function renderLinks({ links }: PointDiff): string | undefined {
  const { heldBy, unfit, devices, ports, ringPfns, other } = links;
  if (heldBy === 'none') return undefined;
  if (heldBy !== 'both') return `only in ${heldBy}`;
  const why = (['from', 'to'] as const).filter((of) => unfit[of] !== '');
  if (why.length > 0) return why.map((of) => `none in ${of}: ${unfit[of]}`).join('; ');
  const parts = [
    devices.length === 0 ? '' : `devices ${some(devices, 'device')}`,
    ports.length === 0 ? '' : `ports ${some(ports.map(String), 'port')}`,
    ringPfns.length === 0 ? '' : `rings at pfns ${some(ringPfns.map(String), 'ring')}`,
    ...other,
  ].filter((part) => part !== '');
  return parts.length === 0 ? 'the same' : parts.join('; ');
}

/** `/a, 1 MiB, reflink`; what is another in the other one as `/a to /b`. */
function renderDisk({ from, to }: PointDiff['disks'][number]): string {
  const words = (disk: DiskOfPoint): string[] => [disk.path, formatBytes(disk.bytes), disk.kind];
  const [was, is] = [from && words(from), to && words(to)];
  if (!was || !is) return `only in ${was ? 'from' : 'to'}: ${(was ?? is ?? []).join(', ')}`;
  return was
    .map((word, i) => {
      // Sizes that read alike may differ by a few bytes.
      const [a, b] =
        i === 1 && from?.bytes !== to?.bytes ? [`${from?.bytes}`, `${to?.bytes} bytes`] : [word, is[i]];
      return a === b ? a : `${a} to ${b}`;
    })
    .join(', ');
}

function render(diff: PointDiff, map: string | undefined): string {
  const { from, to, name, nrPfns, differingPages, pages, state, elapsedMs } = diff;
  const links = renderLinks(diff);
  return renderFacts([
    ['from', `${from} of ${printable(name)}`],
    ['to', to],
    ['differ', `${formatCount(differingPages)} of ${counted(nrPfns, 'page')}`],
    ...pages.map(
      (one) =>
        [
          `  ${classesOf(one)}`,
          `${formatCount(one.count)}: pfns ${some(one.runs.map(renderRun), 'run')}`,
        ] as const,
    ),
    ...renderVcpus(diff),
    ['also', state.length === 0 ? undefined : printable(state.join(', '))],
    ['links', links === undefined ? undefined : printable(links)],
    ...diff.disks.map((disk) => [`disk ${printable(disk.name)}`, printable(renderDisk(disk))] as const),
    ['map', map === undefined ? undefined : printable(map)],
    ['took', formatDuration(elapsedMs)],
  ]);
}

/** As SVG, or as PNG if its name says so. */
function drawAs(path: string, { name, from, to, nrPfns, differingPages, pages }: PointDiff): Buffer {
  const title = `${name}: ${formatCount(differingPages)} of ${counted(nrPfns, 'page')} differ between ${from} and ${to}`;
  const all = pages.flatMap(({ runs }) => runs);
  return /\.png$/iu.test(path) ? heatMapPng(title, nrPfns, all) : Buffer.from(heatMap(title, nrPfns, all));
}

export const pointDiff = defineVerb({
  name: 'point diff',
  summary: 'Says in what two points of a domain differ: pages, registers, other state, disks',
  details:
    'Pages by their classes in the one and in the other, with their pfns; registers of each vCPU by name. What follows from where a guest ' +
    'runs does not count, as for digest: machine frames, ports, the answer of the suspend call. Pages are compared by ' +
    'the hashes that images hold, and read only where there is none. Links are what ties a guest that was paused to devices; of disks it is said which ' +
    'point holds them, of what path and size, not how their content differs.',
  args: [
    storedDomain,
    { ...typedPoint, form: '<from>' },
    { form: '[to]', says: 'the other point (default: latest)' },
  ],
  options: [
    storeOption,
    {
      flags: '--map <file>',
      says: 'draw where the pages are that differ, as SVG, or as PNG if it ends in .png; must not exist',
    },
  ],
  examples: [
    {
      command: 'dormouse point diff web1 latest~1 --store /srv/points',
      says: 'what the last interval changed',
    },
    {
      command: 'dormouse point diff web1 latest~60 latest --store /srv/points --map web1.svg',
      says: 'where in memory',
    },
  ],
  document,
  input: z.object({ domain: text, from: text, to: maybeText, store: storeField, map: maybeText }),
  cancellable: true,
  async run(context, { domain, from, to, store, map }) {
    const diff = await context.withProgress(`diff ${domain}`, (options) =>
      context.services.diffPoints(store, domain, from, to ?? 'latest', {
        ...options,
        ...(map !== undefined && { map: { path: map, draw: (diff: PointDiff) => drawAs(map, diff) } }),
      }),
    );
    return { document: { ...diff, map: map ?? null }, text: render(diff, map) };
  },
});
