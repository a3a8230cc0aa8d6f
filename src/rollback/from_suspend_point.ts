/** Back to where the domain was in its suspend call: any part of it may become another. */
import type { Pause } from '../domain/operation.js';
import type { DomainInfo } from '../domain/state.js';
import { DormouseError } from '../errors.js';
import type { Rewriter } from '../host/contract.js';
import type { ImageReader } from '../image/reader.js';
import type { Plan } from './difference.js';
import type { Job, Way } from './job.js';
import { ownEnds, type PvPoint, pvPointOf, pvStateInPlace } from './pv_in_place.js';

/** A domain that was left half rewound has no page tables to go by: all of them are made again. */
async function beginRewriting(
  job: Job,
  point: PvPoint | null,
  { pins: _, ...part }: Plan,
): Promise<Rewriter> {
  const { host, info, reader, ground } = job;
  const { geometry } = reader.manifest;
  if (!host.rewrite) throw new DormouseError('INTERNAL', 'the host cannot rewrite');
  if (!info.rewinding) {
    const rings = point?.rings ?? null;
    const rewriter = await host.rewrite(ground.lease, { ...part, geometry, rings });
    job.reached('rewinding');
    return rewriter;
  }
  const rewriter = await host.rewrite(ground.lease);
  await rewriter.setGeometry(geometry);
  await rewriter.populate(reader.frameRuns());
  return rewriter;
}

async function rewind(job: Job, point: PvPoint | null, plan: Plan, pause: Pause): Promise<number> {
  const { info, reader, memory, difference } = job;
  const rewriter = await beginRewriting(job, point, plan);
  pause.done('state');
  await job.options.disks?.putBack();
  const writing = difference.write();
  const asking = point && ownEnds(rewriter, point);
  const [put, own] = await Promise.allSettled([writing, asking]);
  if (put.status === 'rejected') throw put.reason as Error;
  if (own.status === 'rejected') throw own.reason as Error;
  pause.done('copy');
  const state = point && own.value ? pvStateInPlace(memory.handle, point, own.value) : reader.manifest.state;
  pause.done('state');
  // A domain that was left half rewound is held by nobody's pause but that.
  await rewriter.complete({ pins: plan.pins, state, release: info.rewinding !== true });
  job.reached('whole');
  pause.done('resume');
  return put.value;
}

/** IMAGE_DAMAGED if the image's own parts contradict each other. */
export function backToSuspendPoint(info: DomainInfo, reader: ImageReader): Way {
  const point = info.type === 'pv' ? pvPointOf(reader) : null;
  return {
    from: () => ({ startInfoPfn: point?.startInfoPfn ?? null }),
    settlesLater: false,
    plan: ({ difference }) => difference.plan(info.rewinding === true),
    rewind: (job, plan, pause) => rewind(job, point, plan, pause),
  };
}
