/** What stands against the restore of an image, found before a domain is made. */
import { onlineVcpus } from '../domain/hvm_context.js';
import { asDormouseError, DormouseError, type ErrorCode, inFile } from '../errors.js';
import type { DomainWanted, Host, Obstacle } from '../host/contract.js';
import { ImageReader } from '../image/reader.js';
import { detectFormat } from '../xenstream/detect.js';
import { type ImageOptions, type RestoredFormat, withImageOf } from './image_of_file.js';
import { requireRestorable } from './pv_guest.js';
import {
  misnamed,
  type Restored,
  type SignerState,
  signerState,
  type TrustOptions,
  untrusted,
} from './trust.js';

export interface CheckOptions extends ImageOptions, TrustOptions {
  readonly name?: string;
  /** Disks that another domain may write to are taken all the same. */
  readonly force?: boolean;
  /** Paths of files or devices that it gets in place of its configuration's, by the names of the disks. */
  readonly newDisks?: ReadonlyMap<string, string>;
}

export interface RestoreFinding extends Obstacle {
  readonly details: readonly string[];
}

export interface CheckResult {
  readonly path: string;
  readonly from: RestoredFormat;
  /** Null, as name and signer are, where the image cannot be opened. */
  readonly imageId: string | null;
  readonly name: string | null;
  readonly signer: SignerState | null;
  /** Empty: it can be restored. */
  readonly findings: readonly RestoreFinding[];
}

/** What the image is to become. A PVH domain's ring pages come on top of its configured memory: its limit is never below. */
export function wantedOf(reader: ImageReader, options: CheckOptions): DomainWanted {
  const { domain, state } = reader.manifest;
  const neededKib = 4 * reader.frameRuns().reduce((sum, [, count]) => sum + count, 0);
  const online = onlineVcpus(state);
  const spec = {
    name: options.name ?? domain.name,
    uuid: domain.uuid,
    type: domain.type,
    maxMemoryKib: Math.max(domain.maxMemoryKib, neededKib),
    // The image counts those that were online, which need not be the first ones.
    vcpus: Math.max(domain.vcpus, ...online.map((id) => id + 1)),
    ...(online.length > 0 && { onlineVcpus: online }),
    config: options.config ?? domain.config,
  };
  return { spec, neededKib, cpu: state };
}

/** What it is built from, once it is known that its own configuration may be used. HOST_LACKS, CONFIG_INVALID. */
export function withDisks(host: Host, wanted: DomainWanted, { newDisks }: CheckOptions): DomainWanted {
  if (newDisks === undefined || newDisks.size === 0) return wanted;
  if (!host.configWithDisks)
    throw new DormouseError('HOST_LACKS', 'the configurations of this host cannot be given other disks');
  const config = host.configWithDisks(wanted.spec.config, newDisks);
  return { ...wanted, spec: { ...wanted.spec, config } };
}

/** Everything that stands against it, most basic first. KEY_INVALID, HOST_UNAVAILABLE. */
export async function findingsOf(
  host: Host,
  restored: Restored,
  options: CheckOptions,
): Promise<DormouseError[]> {
  const { reader, path } = restored;
  try {
    requireRestorable(reader);
  } catch (thrown) {
    // The rest would be said of a domain that can never be.
    return [asDormouseError(thrown)];
  }
  const wanted = wantedOf(reader, options);
  const refused = [
    untrusted(restored, wanted, options),
    misnamed(restored, wanted.spec.name, options),
  ].filter((finding) => finding !== null);
  const obstacles = await host.obstacles(withDisks(host, wanted, options));
  return [
    ...refused,
    ...obstacles
      .filter(({ code }) => code !== 'DISK_IN_USE' || options.force !== true)
      .map(({ code, message }) => new DormouseError(code, message, { place: { path }, guest: 'none' })),
  ];
}

const ofImage: readonly ErrorCode[] = [
  ...(['IMAGE_DAMAGED', 'IMAGE_INCOMPATIBLE', 'IMAGE_NOT_RESTORABLE'] as const),
  ...(['STREAM_INVALID', 'STREAM_UNSUPPORTED'] as const),
];

/** Whether it is the image that is wrong, or one that it needs and that is not there; not that nothing is at `path`. */
const isOfImage = ({ code, place }: DormouseError, path: string): boolean =>
  ofImage.includes(code) || (code === 'IMAGE_NOT_FOUND' && place.path !== undefined && place.path !== path);

/** What is told of an image that cannot be opened. */
async function unopened(path: string, { code, message, details }: DormouseError): Promise<CheckResult> {
  const format = await detectFormat(path);
  const from = format === 'unknown' ? 'dormouse' : format;
  return { path, from, imageId: null, name: null, signer: null, findings: [{ code, message, details }] };
}

/**
 * Whether the file could be restored on this host now: format, trust, processor, memory, name, disks. Its pages are not
 * read, unless it is a file of `xl save`, which is turned into a temporary image as `restore` does. Whatever is wrong with the
 * image is a finding. Errors: IMAGE_NOT_FOUND, IMAGE_READ_FAILED of the file, and those of the host and of keys.
 */
export async function checkImage(host: Host, path: string, options: CheckOptions = {}): Promise<CheckResult> {
  try {
    return await checkOpened(host, path, options);
  } catch (thrown) {
    const error = asDormouseError(thrown);
    if (!isOfImage(error, path)) throw thrown;
    return await unopened(path, inFile(error, path));
  }
}

/** Runs `use` with what stands against its restore. */
function withFindings<T>(
  host: Host,
  path: string,
  options: CheckOptions,
  use: (findings: readonly DormouseError[], restored: Restored) => T,
): Promise<T> {
  return withImageOf(path, options, async ({ path: image, from }) => {
    const reader = await ImageReader.open(image, { lanes: 1, mapOnly: true });
    try {
      const restored = { reader, path, from };
      return use(await findingsOf(host, restored, options), restored);
    } finally {
      reader.close();
    }
  });
}

/** Throws what `restore` would throw of this image before it has made anything. */
export async function requireChecked(host: Host, path: string, options: CheckOptions): Promise<void> {
  await withFindings(host, path, options, ([finding]) => {
    if (finding) throw finding;
  });
}

function checkOpened(host: Host, path: string, options: CheckOptions): Promise<CheckResult> {
  return withFindings(host, path, options, (findings, { reader, from }) => ({
    path,
    from,
    imageId: reader.header.imageId,
    name: options.name ?? reader.manifest.domain.name,
    signer: signerState(reader.signer?.key ?? null),
    findings: findings.map(({ code, message, details }) => ({ code, message, details })),
  }));
}
