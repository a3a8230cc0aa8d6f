/** Whether an image's configuration may be used as it is, and what is said where it may not. */
import { nameFault } from '../domain/selector.js';
import { DormouseError } from '../errors.js';
import type { DomainWanted } from '../host/contract.js';
import type { ImageReader } from '../image/reader.js';
import { configRequests } from '../trust/config_requests.js';
import { isTrustedKey } from '../trust/key_store.js';
import { keyLine } from '../trust/key_text.js';
import { shellWord } from '../trust/shell_word.js';
import { buildConfig, parseXlConfig } from '../xenstream/xl_config.js';
import type { RestoredFormat } from './image_of_file.js';
import { ofPages, outOfProportion } from './proportion.js';

export interface TrustOptions {
  /** The user's, instead of the image's. */
  readonly name?: string;
  /** Used instead of the image's configuration, and trusted. */
  readonly config?: string;
  /** The image's configuration is used whatever it asks for. */
  readonly trustConfig?: boolean;
  /** How to run this again: the command line before and after an option that would be added. */
  readonly typed?: { readonly before: string; readonly after: string };
}

/** What is to be restored: an image, or what an image was made of. */
export interface Restored {
  readonly reader: ImageReader;
  /** As the user named it. */
  readonly path: string;
  readonly from: RestoredFormat;
}

export type SignerState = 'trusted' | 'unknown' | 'unsigned';

/** KEY_INVALID if this host's keys cannot be relied upon. */
export function signerState(key: Buffer | null): SignerState {
  if (key === null) return 'unsigned';
  return isTrustedKey(key) ? 'trusted' : 'unknown';
}

const typedFor = ({ path }: Restored, { typed }: TrustOptions): NonNullable<TrustOptions['typed']> =>
  typed ?? { before: 'dormouse restore', after: shellWord(path) };

/**
 * CONFIG_INVALID, with the line to type, for a name that stands for another domain, whoever signed the image: the next `destroy` of
 * that one would be this one's. Null where the name is good.
 */
export function misnamed(restored: Restored, name: string, options: TrustOptions): DormouseError | null {
  const fault = nameFault(name);
  if (fault === null) return null;
  const { before, after } = typedFor(restored, options);
  const ofImage = options.name === undefined;
  return new DormouseError('CONFIG_INVALID', ofImage ? `${restored.path}: ${fault}` : fault, {
    place: { path: restored.path },
    guest: 'none',
    advice: 'Give it a name that is neither digits only nor a uuid.',
    details: ofImage ? [`to restore it under a name of yours: ${before} --name NEW ${after}`] : [],
  });
}

function why({ path, from }: Restored, state: SignerState): string {
  if (from !== 'dormouse') return `${path} is a file of xl save, which nobody signs`;
  return state === 'unsigned'
    ? `${path} is not signed`
    : `${path} is signed by a key that is not trusted here`;
}

/** Whether it is used whatever it asks for. KEY_INVALID. */
export const isTrusted = ({ reader }: Restored, options: TrustOptions): boolean =>
  options.trustConfig === true || signerState(reader.signer?.key ?? null) === 'trusted';

/** Stands for a name in a configuration that is judged without it. */
const plain = 'guest';

/**
 * What it asks for: of the configuration that it carries, and of what the host is really given, which without libxl's configuration
 * comes from the manifest.
 */
function requestsOf({ reader }: Restored, { spec, neededKib }: DomainWanted, options: TrustOptions) {
  const { type } = spec;
  // A configuration that the user gave is not the image's; its name may still be.
  const carried = { name: options.name === undefined ? spec.name : null, type };
  const { values, more } = configRequests({ ...carried, config: options.config ? '' : spec.config });
  if (options.config && parseXlConfig(options.config)?.c_info) {
    const sizes = outOfProportion(reader, {});
    return { values: [...values, ...sizes], more };
  }
  const { config } = buildConfig({ ...spec, name: plain }, neededKib);
  const sizes = outOfProportion(reader, parseXlConfig(config)?.b_info ?? {});
  const given = configRequests({ name: null, type, config }).values;
  // Of what is said of one place only what says most.
  const rest = new Set(
    [...values, ...given].filter((value) => !sizes.some((size) => size.startsWith(value))),
  );
  return { values: [...rest, ...sizes], more };
}

/**
 * CONFIG_UNTRUSTED, as an error that lists what the image asks for and the lines to type; null where it may be used:
 * it asks for nothing, or a trusted key signed it, or the user says so. KEY_INVALID.
 */
export function untrusted(
  restored: Restored,
  wanted: DomainWanted,
  options: TrustOptions,
): DormouseError | null {
  if (options.trustConfig === true) return null;
  const { values, more } = requestsOf(restored, wanted, options);
  if (values.length === 0 || isTrusted(restored, options)) return null;
  const key = restored.reader.signer?.key ?? null;
  const state = signerState(key);
  const { before, after } = typedFor(restored, options);
  return new DormouseError(
    'CONFIG_UNTRUSTED',
    `${why(restored, state)}, and its configuration asks this host for:`,
    {
      place: { path: restored.path },
      details: [
        ...values,
        ...(more > 0 ? [`and ${more} more`] : []),
        `to restore it as it is: ${before} --trust-config ${after}`,
        ...(values.every((value) => value.startsWith(ofPages))
          ? []
          : [`with a configuration of yours: ${before} --config FILE ${after}`]),
        ...(key && state === 'unknown'
          ? [`to trust all that this key signs: dormouse key trust ${shellWord(keyLine({ key, label: '' }))}`]
          : []),
      ],
    },
  );
}
