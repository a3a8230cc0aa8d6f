/** A disk that is being kept: what all ways have in common. */
import type { DomainDisk } from '../host/contract.js';
import type { KeptDisk } from './kept.js';

export interface Copy {
  readonly disk: KeptDisk;
  /** Before the guest stands: what shortens its pause. */
  ready(): Promise<void>;
  /** While the guest stands; if it stands more than once, the last time counts. What it throws fails the point. */
  take(): void;
  /** It is to be on disk when this returns. */
  settle(): Promise<void>;
  /** Lets go of what it holds open, not of the copy. */
  close(): Promise<void>;
}

export interface ToCopy {
  readonly domain: string;
  readonly disk: DomainDisk;
  readonly where: string;
}
