import * as z from 'zod';
import { renderTable } from '../../render/table.js';
import { printable } from '../../render/units.js';
import { publicKeyOf, textOfKey } from '../key_argument.js';
import { maybeText, text } from '../input.js';
import { defineVerb } from '../verb.js';

const key = z.object({ key: z.string(), label: z.string() });

export const keyList = defineVerb({
  name: 'key list',
  summary: 'Lists the keys whose images are trusted here',
  details: "This host's own key comes first; it is made when the first image is written, or by key show.",
  args: [],
  options: [],
  examples: [{ command: 'dormouse key list', says: 'whose images may bring their configuration' }],
  document: z.object({ folder: z.string(), keys: z.array(key.extend({ own: z.boolean() })) }),
  input: z.object({}),
  cancellable: false,
  async run(context) {
    const { folder, own, trusted } = await context.services.keys.list();
    const keys = [
      ...(own ? [{ ...textOfKey(own), own: true }] : []),
      ...trusted.map((one) => ({ ...textOfKey(one), own: false })),
    ];
    const rows = keys.map((one) => [one.key, one.own ? 'this host' : '', printable(one.label)]);
    return { document: { folder, keys }, text: renderTable(['KEY', '', 'LABEL'], rows) };
  },
});

export const keyShow = defineVerb({
  name: 'key show',
  summary: 'Prints the line by which another host trusts the images of this one',
  details: 'Makes the key if there is none yet. The line is public.',
  args: [],
  options: [],
  examples: [{ command: 'dormouse key show', says: 'the line for key trust elsewhere' }],
  document: key.extend({ line: z.string() }),
  input: z.object({}),
  cancellable: false,
  changes: true,
  async run(context) {
    const { line, ...own } = await context.services.keys.show();
    return { document: { ...textOfKey(own), line }, text: `${line}\n` };
  },
});

export const keyTrust = defineVerb({
  name: 'key trust',
  summary: 'Trusts the images that a key signs',
  details:
    'Such an image may bring any configuration: paths, scripts, devices. Whoever has the key then is root here on each ' +
    'restore. No error if it is trusted already.',
  args: [{ form: '<key>', says: 'a line of key show, or a file that holds it' }],
  options: [{ flags: '--label <text>', says: 'what to call it (default: what the line says)' }],
  examples: [
    { command: 'dormouse key trust other-host.pub', says: 'as other-host printed it with key show' },
  ],
  document: key.extend({ added: z.boolean() }),
  input: z.object({ key: text, label: maybeText }),
  cancellable: false,
  changes: true,
  async run(context, input) {
    const found = await publicKeyOf(input.key);
    const { added, known } = await context.services.keys.trust({
      ...found,
      label: input.label ?? found.label,
    });
    const shown = textOfKey(known);
    return {
      document: { ...shown, added },
      text: `${added ? 'trusted' : 'trusted already'}: ${shown.key} ${printable(shown.label)}\n`,
    };
  },
});

export const keyForget = defineVerb({
  name: 'key forget',
  summary: 'No longer trusts the images that a key signs',
  details: "This host's own key cannot be forgotten.",
  args: [{ form: '<key>', says: 'its line, its base64 form, a file that holds it, or its label' }],
  options: [],
  examples: [{ command: 'dormouse key forget other-host', says: 'by its label' }],
  document: key,
  input: z.object({ key: text }),
  cancellable: false,
  changes: true,
  async run(context, input) {
    const forgotten = textOfKey(await context.services.keys.forget(input.key, publicKeyOf));
    return { document: forgotten, text: `forgotten: ${forgotten.key} ${printable(forgotten.label)}\n` };
  },
});
