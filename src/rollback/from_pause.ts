/** Back to an instant at which the domain was paused: its frames stay, and so do the other ends of its rings. */
import { Buffer } from 'node:buffer';
import type { Pause } from '../domain/operation.js';
import { localiseVcpus } from '../domain/pv_state.js';
import type { DomainInfo, DomainState } from '../domain/state.js';
import { asDormouseError, DormouseError } from '../errors.js';
import type { Rewinder } from '../host/contract.js';
import type { ImageReader } from '../image/reader.js';
import { pageBytes } from '../pfn/page_words.js';
import { steps } from '../worker/steps.js';
import type { Plan } from './difference.js';
import type { Job, Way } from './job.js';
import { requireFrame } from './pv_in_place.js';

const ringPageBytes = 8 + pageBytes;

function ringPfns(rings: Buffer): number[] {
  if (rings.length % ringPageBytes !== 0)
    throw new DormouseError('IMAGE_DAMAGED', `rings have ${rings.length} bytes`);
  const at = Array.from({ length: rings.length / ringPageBytes }, (_, i) => i * ringPageBytes);
  return at.map((offset) => Number(rings.readBigUInt64LE(offset)));
}

/** What names no page of the image would be refused once the domain is half rewound. */
function judge(reader: ImageReader, { type }: DomainInfo): void {
  const { state } = reader.manifest;
  if (state.links?.unfit === '') {
    requireFrame(reader, state.links.eventArrayPfn, 'the event words');
    for (const pfn of ringPfns(state.links.rings)) requireFrame(reader, pfn, 'a ring');
  }
  if (type !== 'pv') return;
  const check = (pfns: BigUint64Array): BigUint64Array => {
    for (const pfn of pfns) requireFrame(reader, Number(pfn), 'a vCPU');
    return pfns;
  };
  localiseVcpus(state.vcpus, check, false);
}

const pagesOf = (runs: Plan['gained']): number => runs.reduce((sum, [, count]) => sum + count, 0);

/** A page that came or went has not the frame that it had. */
function requireFramesStay({ gained, lost }: Plan, { name }: DomainInfo): void {
  const [came, went] = [pagesOf(lost), pagesOf(gained)];
  if (came + went === 0) return;
  throw new DormouseError(
    'HOST_LACKS',
    `${name} has given up ${went} pages since the image and got ${came} others: it can go back in place only with the ` +
      'memory that it had',
    {
      advice:
        'Give it the memory that it had (`xl mem-set`) and try again, or restore the image into a new domain.',
    },
  );
}

/** Of what leaves the domain as it was or half rewound: the host says which. */
async function asTheHostSays<T>({ host, info, reached }: Job, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (thrown) {
    const isRewinding = await host.info(info.domid).then(
      (now) => now.rewinding === true,
      (error: unknown) => asDormouseError(error).code !== 'DOMAIN_NOT_FOUND',
    );
    if (isRewinding) reached('rewinding');
    throw thrown;
  }
}

function takeOff(job: Job): Promise<Rewinder> {
  const { host, reader, ground, options } = job;
  if (!host.rewind) throw new DormouseError('INTERNAL', 'the host cannot rewind');
  const { keepDisks = false } = options;
  return asTheHostSays(job, host.rewind(ground.lease, { state: reader.manifest.state, keepDisks }));
}

/** What its backends wrote until they were off is found too. Until this returns nothing of the domain is changed. */
async function settle(job: Job, rewinder: Rewinder): Promise<Plan> {
  const { info, memory, difference, ground, options, way } = job;
  try {
    const logged = await ground.lastChanges();
    memory.catchUp?.(logged !== null);
    await difference.settle(logged && [logged], options);
    const plan = way.plan(job);
    requireFramesStay(plan, info);
    return plan;
  } catch (thrown) {
    await rewinder.abandon().catch(() => {
      job.reached('rewinding');
    });
    throw thrown;
  }
}

async function putBack(job: Job, rewinder: Rewinder, { pins }: Plan, pause: Pause): Promise<number> {
  const { info, reader, memory, difference } = job;
  await job.options.disks?.putBack();
  const putPages = await difference.write();
  pause.done('copy');
  const toFrames = (pfns: BigUint64Array): BigUint64Array => steps().pfnsToFrames(memory.handle, pfns);
  const then = reader.manifest.state;
  const state: DomainState =
    info.type === 'pv'
      ? {
          ...then,
          vcpus: localiseVcpus(then.vcpus, toFrames, false),
          sharedInfo: Buffer.from(then.sharedInfo),
        }
      : then;
  await rewinder.complete({ pins, state });
  return putPages;
}

async function rewind(job: Job, before: Plan, pause: Pause): Promise<number> {
  const { host, info, ground } = job;
  requireFramesStay(before, info);
  const rewinder = await takeOff(job);
  pause.done('state');
  const plan = await settle(job, rewinder);
  pause.done('find');
  await asTheHostSays(job, rewinder.begin());
  job.reached('rewinding');
  pause.done('state');
  const putPages = await putBack(job, rewinder, plan, pause).catch(async (thrown: unknown) => {
    await rewinder.requireThere();
    throw thrown;
  });
  job.reached('whole');
  await host.releasePaused(ground.lease);
  pause.done('resume');
  return putPages;
}

/** IMAGE_DAMAGED if the image's own parts contradict each other. */
export function backToPause(info: DomainInfo, reader: ImageReader): Way {
  judge(reader, info);
  return {
    from: ({ alone = [] }) => ({ alonePfns: alone }),
    settlesLater: true,
    // Page tables are none while pages are written: all of them are made again.
    plan: ({ difference }) => difference.plan(true),
    rewind,
  };
}
