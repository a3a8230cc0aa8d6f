/** Back to an instant at which the domain was paused: its frames stay, and so do the other ends of its rings. */
import { Buffer } from 'node:buffer';
import type { Pause } from '../domain/operation.js';
import { localiseVcpus } from '../domain/pv_state.js';
import type { DomainInfo, DomainState } from '../domain/state.js';
import { DormouseError } from '../errors.js';
import type { Rewinder } from '../host/contract.js';
import type { ImageReader } from '../image/reader.js';
import { steps } from '../worker/steps.js';
import type { Plan } from './difference.js';
import type { Job, Way } from './job.js';
import { requireFrame } from './pv_in_place.js';

/** What names no page of the image would be refused once the domain is half rewound. */
function judge(reader: ImageReader, { type }: DomainInfo): void {
  const { state } = reader.manifest;
  if (state.links?.unfit === '') requireFrame(reader, state.links.eventArrayPfn, 'the event words');
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

async function begin(job: Job): Promise<Rewinder> {
  const { host, info, reader, ground, options } = job;
  if (!host.rewind) throw new DormouseError('INTERNAL', 'the host cannot rewind');
  try {
    const { keepDisks = false } = options;
    const rewinder = await host.rewind(ground.lease, { state: reader.manifest.state, keepDisks });
    job.reached('rewinding');
    return rewinder;
  } catch (thrown) {
    const now = await host.info(info.domid).catch(() => null);
    if (now?.rewinding) job.reached('rewinding');
    throw thrown;
  }
}

async function rewind(job: Job, plan: Plan, pause: Pause): Promise<number> {
  const { info, reader, memory, difference } = job;
  requireFramesStay(plan, info);
  const rewinder = await begin(job);
  pause.done('state');
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
  await rewinder.complete({ pins: plan.pins, state });
  job.reached('whole');
  pause.done('resume');
  return putPages;
}

/** IMAGE_DAMAGED if the image's own parts contradict each other. */
export function backToPause(info: DomainInfo, reader: ImageReader): Way {
  judge(reader, info);
  return {
    from: ({ alone = [] }) => ({ alonePfns: alone }),
    // Page tables are none while pages are written: all of them are made again.
    plan: ({ difference }) => difference.plan(true),
    rewind,
  };
}
