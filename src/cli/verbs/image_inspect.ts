import * as z from 'zod';
import type { Inspection } from '../../image/inspect.js';
import type { SignerState } from '../../restore/trust.js';
import { keyText } from '../../trust/key_text.js';
import { figures, pageCounts } from '../documents.js';
import { imageArgument } from '../image_argument.js';
import { renderClasses } from '../../render/progress.js';
import { renderFacts } from '../../render/table.js';
import { formatBytes, formatCount, formatDuration, formatRatio, printable } from '../../render/units.js';
import { text } from '../input.js';
import { defineVerb } from '../verb.js';
import { pageBytes } from '../../pfn/page_words.js';
import { domainTypes } from '../../domain/type.js';
import { consistencies } from '../../image/format.js';

const id = z.string().regex(/^[0-9a-f]+$/u);

const document = z.object({
  path: z.string(),
  fileBytes: figures.count,
  committed: z.boolean(),
  format: z.object({ major: figures.count, minor: figures.count }).nullable(),
  imageId: id.nullable(),
  parent: z.object({ imageId: id, root: id }).nullable(),
  chain: z.object({ chainId: id, sequence: figures.count }).nullable(),
  pageMap: z.enum(['full', 'changes']).nullable(),
  ancestors: z
    .array(z.object({ imageId: id, root: id, sequence: figures.count, name: z.string() }))
    .nullable(),
  root: id.nullable(),
  contentRoot: id.nullable(),
  pageHashes: z.boolean().nullable(),
  signer: z.enum(['trusted', 'unknown', 'unsigned']).nullable(),
  signerKey: z.string().nullable(),
  consistency: z.enum(consistencies).nullable(),
  createdAt: z.string().nullable(),
  tool: z.string().nullable(),
  hostKind: z.string().nullable(),
  domain: z
    .strictObject({
      name: z.string(),
      uuid: z.string(),
      type: z.enum(domainTypes),
      vcpus: figures.count,
      maxMemoryKib: figures.count,
    })
    .nullable(),
  nrPfns: figures.count.nullable(),
  memoryBytes: figures.count.nullable(),
  counts: pageCounts,
  chunks: z.object({
    count: figures.count,
    byCodec: z.record(z.string(), figures.count),
    ofDeltas: figures.count,
  }),
  storedPages: figures.count,
  ratio: z.number().nonnegative(),
  pauseMs: figures.milliseconds.nullable(),
  elapsedMs: figures.milliseconds.nullable(),
  damage: z.array(z.string()),
});

function describe(found: Inspection, signer: SignerState): z.infer<typeof document> {
  const { header, manifest } = found;
  const { path, fileBytes, committed, root, counts, chunks, storedPages, ratio } = found;
  const { memoryBytes } = found;
  return {
    ...{ path, fileBytes, committed },
    format: header && { major: header.major, minor: header.minor },
    imageId: header?.imageId ?? null,
    parent: header?.parent ?? null,
    chain: header && { chainId: header.chainId, sequence: header.sequence },
    pageMap: found.mapKind,
    ancestors: found.ancestors && found.ancestors.map((ancestor) => ({ ...ancestor })),
    root,
    contentRoot: found.contentRoot,
    pageHashes: header?.hasPageHashes ?? null,
    // Of a damaged header or footer nobody knows.
    signer: found.rootHolds ? signer : null,
    signerKey: found.signerKey ? keyText(found.signerKey) : null,
    consistency: header?.consistency ?? manifest?.consistency ?? null,
    createdAt: manifest?.createdAt ?? null,
    tool: manifest?.tool ?? null,
    hostKind: manifest?.hostKind ?? null,
    domain: manifest && {
      name: manifest.domain.name,
      uuid: manifest.domain.uuid,
      type: manifest.domain.type,
      vcpus: manifest.domain.vcpus,
      maxMemoryKib: manifest.domain.maxMemoryKib,
    },
    nrPfns: header?.nrPfns ?? manifest?.geometry.nrPfns ?? null,
    memoryBytes,
    counts: { ...counts },
    chunks: { ...chunks, byCodec: { ...chunks.byCodec } },
    storedPages,
    ratio: Number.isFinite(ratio) ? ratio : 0,
    pauseMs: manifest ? manifest.timings.pauseUs / 1000 : null,
    elapsedMs: manifest ? manifest.timings.elapsedUs / 1000 : null,
    damage: [...found.damage],
  };
}

function words(value: string | number | null | undefined): string {
  return value === null || value === undefined ? 'unreadable' : printable(String(value));
}

/** Without the footer only how far the pfns go is known. */
function memoryWords({ memoryBytes, nrPfns }: z.infer<typeof document>): string {
  if (memoryBytes !== null) return formatBytes(memoryBytes);
  // Of an increment, too: what its ancestors hold of it is not looked at.
  return nrPfns === null ? 'unreadable' : `at most ${formatBytes(nrPfns * pageBytes)}`;
}

/** The file it was taken on, its number in the chain, and how many files it needs. */
function parentWords({ format, parent, chain, ancestors, pageMap }: z.infer<typeof document>): string {
  if (!format) return 'unreadable';
  if (!parent) return 'none';
  const name = ancestors?.[0] ? printable(ancestors[0].name) : parent.imageId;
  const files = pageMap === 'full' ? `, with pages in ${formatCount(ancestors?.length ?? 0)} files` : '';
  return `${name} (increment ${formatCount(chain?.sequence ?? 0)} of its chain${files})`;
}

function signerWords({ signer, signerKey }: z.infer<typeof document>): string {
  if (signer === null) return 'cannot be told: header or footer is damaged';
  if (signerKey === null) return 'nobody';
  return `${signerKey} (${signer === 'trusted' ? 'trusted here' : 'NOT TRUSTED here'})`;
}

const looksAt =
  'header, footer, manifest, ancestors, chunk table, heads of chunks; not read: page map, hashes, digests, pages ' +
  '(image verify reads every byte)';

function writtenWords({ createdAt, tool }: z.infer<typeof document>): string {
  return createdAt === null && tool === null ? 'unreadable' : `${words(createdAt)} by ${words(tool)}`;
}

function render(image: z.infer<typeof document>): string {
  const { domain, format, chunks, pauseMs, elapsedMs } = image;
  const kinds = Object.entries(chunks.byCodec).map(
    ([kind, count]) => `${printable(kind)} ${formatCount(count)}`,
  );
  if (chunks.ofDeltas > 0) kinds.push(`of deltas ${formatCount(chunks.ofDeltas)}`);
  const facts = renderFacts([
    [
      'file',
      `${printable(image.path)}, ${formatBytes(image.fileBytes)}${image.committed ? '' : ', NOT COMMITTED'}`,
    ],
    ['format', format ? `${format.major}.${format.minor}` : 'unreadable'],
    ['image', words(image.imageId)],
    ['parent', parentWords(image)],
    ['root', words(image.root)],
    ['signed by', signerWords(image)],
    ['consistency', words(image.consistency)],
    ['written', writtenWords(image)],
    ['domain', domain ? `${printable(domain.name)} (${domain.type}, ${domain.uuid})` : 'unreadable'],
    ['kind of host', words(image.hostKind)],
    ['vCPUs', words(domain?.vcpus)],
    ['memory', memoryWords(image)],
    ['pages', renderClasses(image.counts)],
    ['chunks', `${formatCount(chunks.count)}${kinds.length > 0 ? ` (${kinds.join(', ')})` : ''}`],
    ['ratio', formatRatio(image.ratio)],
    ['writing took', elapsedMs === null ? undefined : formatDuration(elapsedMs)],
    ['pause', pauseMs === null || pauseMs === 0 ? undefined : formatDuration(pauseMs)],
    ['damage', image.damage.length === 0 ? `none met in ${looksAt}` : String(image.damage.length)],
  ]);
  return facts + image.damage.map((line) => `  ${printable(line)}\n`).join('');
}

export const imageInspect = defineVerb({
  name: 'image inspect',
  summary: 'Says what is inside an image, as far as damage lets it',
  details: 'Reads structures, not pages, and never changes the file. Exit code 3 if it met damage.',
  args: [{ form: '<file>', says: 'the image' }],
  options: [],
  examples: [{ command: 'dormouse image inspect web1.dmi', says: 'domain, page classes, ratio, parents' }],
  document,
  input: z.object({ file: text }),
  cancellable: false,
  async run(context, input) {
    const found = await context.services.inspectImage(await imageArgument(context, input.file));
    const described = describe(found, await context.services.signerState(found.signerKey));
    return { document: described, text: render(described), exitCode: described.damage.length > 0 ? 3 : 0 };
  },
});
