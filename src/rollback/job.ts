/** What a rollback works with, from the moment at which the domain's memory is open. */
import type { OperationOptions } from '../domain/progress.js';
import type { Pause } from '../domain/operation.js';
import type { DomainInfo } from '../domain/state.js';
import type { Beside, Captured } from '../capture/write_image.js';
import type { Host, MemoryView } from '../host/contract.js';
import type { ImageReader } from '../image/reader.js';
import type { Difference, FromPause, FromSuspendPoint, Plan } from './difference.js';
import type { DisksBack } from './disks.js';
import type { Ground } from './ground.js';

export interface RollbackOptions extends OperationOptions {
  /** Path of a light image of the domain as it is right before it goes back; it must not exist. Without: there is none. */
  readonly safety?: string;
  /** Called when that image is there, before the domain goes back; what it throws leaves the domain as it is. */
  readonly safe?: (image: Captured, taken: SafetyTaken) => Promise<void>;
  /** Disks that the domain writes to stay as they are now. Without, on a host with such disks: HOST_LACKS. */
  readonly keepDisks?: boolean;
  /** Puts disks back once their backends are away. */
  readonly disks?: DisksBack;
  /** Taken at the instant of the safety image. */
  readonly beside?: Beside;
  /** It is paused once it is back, though it ran before. */
  readonly leavePaused?: boolean;
  /** Called from when the domain is not what it was, whatever becomes of the rollback. */
  readonly touched?: () => void;
}

/** Of a safety image: when the domain stood for it (milliseconds since 1970), and for how long. */
export interface SafetyTaken {
  readonly atMs: number;
  readonly pauseMs: number;
}

/** `before`: the domain is as it was; `rewinding`: neither that nor what it is to be; `whole`: it is back. */
export type Stage = 'before' | 'rewinding' | 'whole';

export interface Job {
  readonly host: Host;
  readonly info: DomainInfo;
  readonly reader: ImageReader;
  readonly way: Way;
  readonly ground: Ground;
  readonly memory: MemoryView;
  readonly difference: Difference;
  readonly options: RollbackOptions;
  readonly reached: (stage: Stage) => void;
}

export type OpenedMemory = MemoryView & { readonly alone?: readonly number[] };

/** To what a domain goes back: to its suspend point, or to an instant at which it was paused. */
export interface Way {
  from(memory: OpenedMemory): FromSuspendPoint | FromPause;
  /** Where there is no log, `rewind` looks for what differs by itself. */
  readonly settlesLater: boolean;
  /** Of a domain that stands still: what is to be done to it besides its pages. */
  plan(job: Job): Plan;
  /**
   * Pages that were put back. From where `reached` is called the domain runs again only once it is whole: nothing is cancelled
   * there.
   */
  rewind(job: Job, plan: Plan, pause: Pause): Promise<number>;
}
