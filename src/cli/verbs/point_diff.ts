import * as z from 'zod';
import type { PointDiff } from '../../diff/points.js';
import { classNames } from '../../pfn/counts.js';
import type { PfnRun } from '../../pfn/pfn_runs.js';
import { heatMap } from '../../render/heat_map.js';
import { classWords } from '../../render/progress.js';
import { renderFacts } from '../../render/table.js';
import { counted, formatCount, formatDuration, printable } from '../../render/units.js';
import { figures } from '../documents.js';
import { maybeText, text } from '../input.js';
import { storedDomain, storeField, storeOption, typedPoint } from '../store_argument.js';
import { defineVerb } from '../verb.js';

const mostShown = 8;

const pageClass = z.enum(classNames).exclude(['absent', 'sameAsParent']);
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

function render(diff: PointDiff, map: string | undefined): string {
  const { from, to, name, nrPfns, differingPages, pages, state, elapsedMs } = diff;
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
    ['map', map === undefined ? undefined : printable(map)],
    ['took', formatDuration(elapsedMs)],
  ]);
}

function draw({ name, from, to, nrPfns, differingPages, pages }: PointDiff): string {
  const title = `${name}: ${formatCount(differingPages)} of ${counted(nrPfns, 'page')} differ between ${from} and ${to}`;
  return heatMap(
    title,
    nrPfns,
    pages.flatMap(({ runs }) => runs),
  );
}

export const pointDiff = defineVerb({
  name: 'point diff',
  summary: 'Says in what two points of a domain differ: pages, registers, other state',
  details:
    'Pages by their classes in the one and in the other, with their pfns; registers of each vCPU by name. What follows from where a guest ' +
    'runs does not count, as for digest: machine frames, ports, the answer of the suspend call. Pages are compared by ' +
    'the hashes that images hold, and read only where there is none.',
  args: [
    storedDomain,
    { ...typedPoint, form: '<from>' },
    { form: '[to]', says: 'the other point (default: latest)' },
  ],
  options: [
    storeOption,
    { flags: '--map <file>', says: 'draw where the pages are that differ, as SVG; must not exist' },
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
        ...(map !== undefined && { map: { path: map, draw } }),
      }),
    );
    return { document: { ...diff, map: map ?? null }, text: render(diff, map) };
  },
});
