import * as z from 'zod';
import { counted } from '../../render/units.js';
import { keeperField, keeperOption } from '../disks_option.js';
import { flag, text } from '../input.js';
import { storedDomain, storeField, storeOption, typedPoint } from '../store_argument.js';
import { defineVerb, given } from '../verb.js';

const args = [storedDomain, typedPoint];
const pinDocument = z.object({ point: z.string(), changed: z.boolean() });
const pinInput = z.object({ domain: text, point: text, store: storeField });

export const pointPin = defineVerb({
  name: 'point pin',
  summary: 'Keeps a point, whatever any rule says',
  details: 'No error if it is pinned already.',
  args,
  options: [storeOption],
  examples: [{ command: 'dormouse point pin web1 latest --store /srv/points', says: 'before an upgrade' }],
  document: pinDocument,
  input: pinInput,
  changes: true,
  cancellable: false,
  async run(context, { domain, point, store }) {
    const document = await context.services.pinPoint(store, domain, point, true);
    return { document, text: `${document.point} ${document.changed ? 'is pinned' : 'was pinned already'}\n` };
  },
});

export const pointUnpin = defineVerb({
  name: 'point unpin',
  summary: 'Gives a pinned point back to the rules',
  details: 'No error if it is not pinned.',
  args,
  options: [storeOption],
  examples: [
    {
      command: 'dormouse point unpin web1 20261122-1835 --store /srv/points',
      says: 'by how its name begins',
    },
  ],
  document: pinDocument,
  input: pinInput,
  changes: true,
  cancellable: false,
  async run(context, { domain, point, store }) {
    const document = await context.services.pinPoint(store, domain, point, false);
    return {
      document,
      text: `${document.point} ${document.changed ? 'is no longer pinned' : 'was not pinned'}\n`,
    };
  },
});

export const pointVerify = defineVerb({
  name: 'point verify',
  summary: 'Says of every point of a domain whether it can be read',
  details:
    'Each record, image and ancestor is there and is the one that is meant, and each disk is there and as large as it was. With --read-data every byte of every image is read too, each ' +
    'once however many points need it. Exit code 3 if anything is damaged.',
  args: [storedDomain],
  options: [storeOption, { flags: '--read-data', says: 'read the images whole' }, keeperOption],
  examples: [
    {
      command: 'dormouse point verify web1 --store /srv/points --read-data',
      says: 'before they are relied upon',
    },
  ],
  document: z.object({
    points: z.int().nonnegative(),
    images: z.int().nonnegative(),
    disks: z.int().nonnegative(),
    findings: z.array(
      z.object({ point: z.string().nullable(), image: z.string().nullable(), what: z.string() }),
    ),
  }),
  input: z.object({ domain: text, store: storeField, readData: flag, disks: keeperField }),
  cancellable: true,
  async run(context, { domain, store, readData, disks: program }) {
    const chosen = { readData, signal: context.signal, ...given({ program }) };
    const report = await context.services.verifyPoints(store, domain, chosen);
    const { findings, points, images, disks } = report;
    const lines = findings.map(
      ({ point, image, what }) => `${[point, image, what].filter((part) => part !== null).join(': ')}\n`,
    );
    const kept = disks === 0 ? '' : `, ${counted(disks, 'disk')}`;
    const text = `${counted(points, 'point')}, ${counted(images, 'image')}${kept}: ${
      findings.length === 0 ? 'whole' : counted(findings.length, 'finding')
    }\n`;
    return { document: report, text: lines.join('') + text, exitCode: findings.length === 0 ? 0 : 3 };
  },
});
