/** One native object of every kind, and for each exported function arguments that are right: what junk is put among. */
import { openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { addon, native } from '../../src/addon.js';
import { createHash, randomBytes } from 'node:crypto';
import { MAX_CHUNK_BODIES, MAX_CHUNK_PAGES } from '../../src/image/format.js';
import { nativeImage } from '../../src/image/native.js';
import { ImageReader } from '../../src/image/reader.js';
import { nativePageStream } from '../../src/xenstream/frames/native.js';
import { steps } from '../../src/worker/steps.js';
import { boot, guestDefaults, hv, newMachine, openView } from './embedded.js';
import { page, random, writeImage } from './images.js';
import { pageBytes } from '../../src/pfn/page_words.js';

/** Pages of the image, and of the guest. */
export const imagePages = 40;
export const guestPages = 512;

export type Arguments = readonly unknown[];

export interface World {
  readonly handles: readonly number[];
  /** By `namespace.name`; a function that is missing here gets junk only. */
  readonly right: Readonly<Record<string, Arguments>>;
}

const page4k = Buffer.alloc(pageBytes);
const words = (...list: bigint[]): BigUint64Array => BigUint64Array.from(list);

/** A fresh world in this folder. Nothing of the one before is given back: the process is short-lived. */
export async function newWorld(dir: string, number: number): Promise<World> {
  const path = join(dir, `${number}.dormouse`);
  const next = random(number);
  const pages = Array.from({ length: imagePages }, (_, pfn) => page(pfn, next));
  await writeImage(path, imagePages, [pages]);
  const reader = (await ImageReader.open(path, { lanes: 2 })).handle;
  const machine = newMachine(4096, number);
  const diskPath = join(dir, `${number}.disk`);
  writeFileSync(diskPath, Buffer.alloc(16 * pageBytes));
  boot(machine, 1, 1, { pages: guestPages }, [diskPath]);
  const shell = { domid: 2, type: 'pv', vcpus: 1, maxPages: 1024 } as const;
  native(() => hv.createShell(machine.id, shell));
  const layout = hv.machineLayout(machine.id);
  const domain = hv.domainLayout(machine.id, 1);
  const memory = openView(machine, 1, 'live');
  const building = openView(machine, 1, 'build');
  const sink = openSync('/dev/null', 'w');
  const id = randomBytes(16);
  const stream = nativePageStream().create(sink, false, imagePages, 2, id, 1000);
  const header = Buffer.alloc(pageBytes);
  const newPath = join(dir, `${number}.new`);
  const setup = {
    ...{ path: newPath, header, nrPfns: imagePages, lanes: 2, direct: false, unnamed: true, nameless: false },
    ...{
      pageHashes: true,
      digests: true,
      parentPfns: imagePages,
      fullMap: false,
      skipUnchanged: false,
      complete: false,
      compression: 'auto' as const,
      deltas: { pages: 0 as const, image: 0, images: [] },
    },
  };
  nativeImage().prepareHashes(reader);
  const writer = nativeImage().createWriter({ ...setup, parent: reader });
  const basePages = nativeImage().createBasePages(64);
  const output = native(() => outputAddon().create(join(dir, `${number}.core`), false));
  const digest = steps().digestCreate(guestPages);
  const tracker = steps().trackerCreate(guestPages);
  const [byLog, byContent] = [false, true].map((content) => steps().liveCreate(guestPages, content, 64));
  // Of an image of another size than the guest: what would write to it is refused.
  const rewind = steps().rewindCreate(reader, words(), null, 16);
  const diff = steps().diffCreate(reader, reader, [1]);
  const wide = native(() => outputAddon().create(join(dir, `${number}.raw`), false));
  const pageFile = native(() => outputAddon().pageFile(wide, reader, false, words(), false)).file;
  const some = Buffer.alloc(300, 'abc ');
  const readPath = join(dir, `${number}.fd`);
  const readFd = openSync(readPath, 'w+');
  writeSync(readFd, randomBytes(64));
  const source = {
    ...{ fd: readFd, name: readPath, nrPfns: imagePages, newer: false, chunksEnd: 2 * pageBytes },
    ...{ chunkTable: Buffer.alloc(32, 1), digests: Buffer.alloc(32), pageHashes: Buffer.alloc(16) },
    ...{ deltas: false, bases: [] },
  };
  const layer = {
    ...{ map: randomBytes(40), runs: 1, nrPfns: imagePages, sparse: false, newer: false, sources: [0] },
  };
  const right: Record<string, Arguments> = {
    'pfn.translate': ['', true, words(1n, 2n), words(~0n, 0n, 1n), 1, page4k, Buffer.alloc(pageBytes)],
    'pfn.isZeroPage': ['scalar', page4k],
    'pfn.hash128': ['', some],
    'pfn.simdRuns': ['avx2'],
    'codec.lz4Compress': [some, Buffer.alloc(300), 1],
    'codec.lz4Decompress': [some, Buffer.alloc(300)],
    'codec.deltaCompress': [some, Buffer.alloc(300), Buffer.alloc(300)],
    'codec.deltaApply': [some, Buffer.alloc(300)],
    'image.createWriter': [
      { ...setup, path: `${newPath}er`, parent: reader, fullMap: true, skipUnchanged: true },
    ],
    'image.append': [writer, 0, words(0n | (1n << 56n)), page4k],
    'image.writerCounts': [writer],
    'image.finish': [writer],
    'image.writerChunkTable': [writer],
    'image.writerPageHashes': [writer],
    'image.writerDigests': [writer],
    'image.writerContentRoot': [writer, Buffer.alloc(32)],
    'image.writerDeltaAges': [writer],
    'image.createBasePages': [64],
    'image.closeBasePages': [basePages],
    'image.encodeMap': [writer],
    'image.writeTail': [writer, page4k],
    'image.publish': [writer],
    'image.descriptor': [writer],
    'image.failCall': [writer, 1, 5, false],
    'image.followDeltas': [reader],
    'image.checkChunk': [reader, 0, 0],
    'image.readChunk': [reader, 0, 0],
    'image.chunkEntry': [reader, 0],
    'image.readPages': [reader, Float64Array.of(0, 1), Buffer.alloc(2 * pageBytes)],
    'image.pageEntry': [reader, 3],
    'image.classRuns': [reader, 255, true],
    'image.readerCounts': [reader],
    'image.readerExtent': [reader],
    'image.prepareHashes': [reader],
    'image.openReader': [{ lanes: 2, sources: [source], layers: [layer] }],
    'pageStream.create': [sink, false, imagePages, 2, id, 1000],
    'pageStream.putFrame': [stream, 2, some],
    'pageStream.putBytes': [stream, some],
    'pageStream.counts': [stream],
    'pageStream.checkComplete': [stream],
    'pageStream.decodeFrame': [
      ...[Buffer.alloc(pageBytes, createHash('md5').digest()), 16, false, imagePages],
      ...[new BigUint64Array(MAX_CHUNK_PAGES), Buffer.alloc(MAX_CHUNK_BODIES * pageBytes)],
    ],
    'output.write': [output, some],
    'output.writePages': [output, memory, 0, 64],
    'output.seal': [output],
    'output.publish': [output],
    'step.saveStep': [memory, stream, 0, 0, imagePages],
    'disk.clone': [readFd, readFd, 0],
    'disk.flushDevice': [readFd],
    'disk.deviceBytes': [readFd],
    'step.restoreStep': [building, reader, 0, 0, 1],
    'step.hashStep': [reader, 0, 0, 1],
    'step.digestCreate': [guestPages],
    'step.digestCreateOfImage': [reader],
    'step.digestDomainStep': [memory, digest, 0, 64],
    'step.digestImageStep': [reader, digest, 0, 0, 1],
    'step.digestSetPage': [digest, 3, 0, page4k],
    'step.digestBlank': [digest, 3],
    'step.digestFinish': [digest],
    'step.queryPages': [memory, 0, 64],
    'step.readPages': [memory, words(1n, 2n)],
    'step.writePages': [building, words(20n), page4k],
    'step.writeP2mLeaves': [building, words(20n)],
    'step.admitPages': [words(20n | (1n << 56n)), Buffer.alloc(64), Buffer.alloc(64), words(0n)],
    'step.placePages': [building, words(20n | (1n << 56n)), page4k, Buffer.alloc(64)],
    'step.localiseTables': [building, words(20n), Uint8Array.of(1)],
    'step.framesToPfns': [memory, words(20n)],
    'step.pfnsToFrames': [memory, words(20n)],
    'step.adoptMemory': [{}],
    'step.trackerCreate': [guestPages],
    'step.trackerRecord': [tracker, memory, 0, 64],
    'step.trackerChanged': [tracker, memory, 2],
    'step.liveCreate': [guestPages, true, 64],
    'step.liveStep': [byLog, memory, stream, 0, 0, 0, 64],
    'step.liveMerge': [byLog, memory, Buffer.alloc(guestPages / 8, 3)],
    'step.liveCapture': [
      ...[byContent, memory],
      { logged: null, thorough: true, anywhere: true, maxPages: 64, threads: 2 },
    ],
    'step.liveFindRetyped': [byLog, memory],
    'step.livePending': [byLog],
    'step.livePieces': [byLog, memory, 64],
    'step.livePut': [byLog, stream, 0, 0, 1],
    'step.memoryPieces': [memory, guestPages, 64],
    'step.rewindCreate': [reader, words(1n), 3, 16],
    'step.rewindKeepFrames': [rewind, words(1n)],
    'step.rewindSuspectAll': [rewind],
    'step.rewindMerge': [rewind, Buffer.alloc(imagePages / 8, 3)],
    'step.rewindMissing': [rewind],
    'step.rewindKeep': [rewind, 0, 0, 1],
    'step.rewindLook': [rewind, memory],
    'step.rewindCompare': [rewind, memory, 0, 0, 1],
    'step.rewindPlan': [rewind, memory, true],
    'step.rewindWrite': [rewind, memory, 2],
    'step.rewindPlace': [rewind, memory, 0, 0, 1],
    'step.diffCreate': [reader, reader, [0]],
    'step.diffBlank': [diff, true, 3, 40, 52],
    'step.diffSeek': [diff, false, 8],
    'step.diffLook': [diff, false, 0, 0, 1],
    'step.diffFinish': [diff],
    'step.copyStep': [reader, writer, 0, 0, 1, true],
    'step.copyHoles': [reader, stream, 0, 0, imagePages],
    'output.pageFile': [wide, reader, true, words(3n), true],
    'step.pageFilePut': [pageFile, 0, 0, 1],
    'embedded.openMachine': [layout],
    'embedded.openView': [machine.map, { domain, kind: 'live', epoch: 0, consume: false }],
    'embedded.openAsXen': [machine.map, { domain, translated: true, p2mPfns: words(1n) }],
    'embedded.readEntries': [memory, 0, 64],
    'embedded.readPages': [memory, [1, 2]],
    'embedded.writePages': [building, [20], page4k],
    'hypervisor.createShell': [machine.id, { ...shell, domid: 3 }],
    'hypervisor.boot': [machine.id, 2, { ...guestDefaults, pages: guestPages }],
    'hypervisor.setGeometry': [
      ...[machine.id, 2],
      { nrPfns: guestPages, guestWidth: 8, p2mFrames: [1], p2mGeneration: 0 },
    ],
    'hypervisor.populate': [machine.id, 2, [[0, 20]]],
    'hypervisor.frames': [machine.id, 1, [1, 2]],
    'hypervisor.writeSharedInfo': [machine.id, 2, page4k],
    'hypervisor.pin': [machine.id, 2, [{ pfn: 3, level: 4 }]],
    'hypervisor.beginRewrite': [machine.id, 1, null],
    'hypervisor.takeTables': [machine.id, 1, [{ pfn: 7, level: 4 }]],
    'hypervisor.finishInPlace': [machine.id, 1],
    'hypervisor.unpin': [machine.id, 1, 7],
    'hypervisor.setVcpu': [machine.id, 2, 0, Buffer.alloc(5168)],
    'hypervisor.getVcpu': [machine.id, 1, 0],
    'hypervisor.shutdownRequest': [machine.id, 1, 'suspend'],
    'hypervisor.balloon': [machine.id, 1, 100, 4, false],
    'hypervisor.setUnlogged': [machine.id, 1, { gained: true, lost: false, retyped: true, granted: false }],
    'hypervisor.addDisk': [machine.id, 2, { name: 'xvda', path: diskPath, writable: true, port: 9 }],
    'hypervisor.addNetwork': [machine.id, 2, { mac: Buffer.from('00163e000001', 'hex'), port: 10 }],
    'hypervisor.setBackend': [
      ...[machine.id, 1, 0],
      { holds: 'answers', delayUs: 10, seed: 3, neverCloses: false },
    ],
    'hypervisor.releaseSnapshot': [machine.id, 1, 1],
    'hypervisor.poke': [machine.id, 1, 7, 3, 0n],
  };
  for (const name of ['machineInfo', 'machineLayout', 'domids']) right[`hypervisor.${name}`] = [machine.id];
  for (const name of ofOneDomain) right[`hypervisor.${name}`] = [machine.id, 1];
  const handles = [
    reader,
    memory,
    building,
    stream,
    writer,
    output,
    digest,
    tracker,
    rewind,
    diff,
    byLog ?? 0,
  ];
  return { handles: [...handles, machine.id, machine.map], right };
}

const ofOneDomain =
  'domainInfo domainLayout geometry progress pause unpause shutdownCancel resumeInPlace snapshot cowPages logDirtyOn logDirtyPeek logDirtyReadAndClear logDirtyOff disks networks detachDevices attachDevices finish sharedInfoFrame readSharedInfo'.split(
    ' ',
  );

interface OutputAddon {
  create(path: string, directIo: boolean): number;
  pageFile(
    output: number,
    reader: number,
    packed: boolean,
    leafPfns: BigUint64Array,
    lime: boolean,
  ): { file: number };
}
function outputAddon(): OutputAddon {
  return addon('output') as OutputAddon;
}
