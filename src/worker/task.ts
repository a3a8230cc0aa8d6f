/** What runs in a worker thread: one native step for each message. Pages never enter JavaScript. */
import { asDormouseError, type ErrorCode, type ErrorPlace } from '../errors.js';
import { type PassKind, steps } from './steps.js';
import type {
  DiffHandle,
  DigestHandle,
  LiveHandle,
  MemoryHandle,
  PageFileHandle,
  ReaderHandle,
  RewindHandle,
  WriterHandle,
} from '../handle.js';

export type Task =
  | { step: 'warm' }
  | { step: 'save'; memory: MemoryHandle; writer: WriterHandle; lane: number; first: number; count: number }
  | {
      step: 'live';
      live: LiveHandle;
      kind: PassKind;
      memory: MemoryHandle;
      writer: WriterHandle;
      lane: number;
      first: number;
      count: number;
    }
  | { step: 'live-put'; live: LiveHandle; writer: WriterHandle; lane: number; first: number; count: number }
  | { step: 'hash'; reader: ReaderHandle; lane: number; first: number; count: number }
  | {
      step: 'restore';
      memory: MemoryHandle;
      reader: ReaderHandle;
      lane: number;
      first: number;
      count: number;
    }
  | {
      step: 'rewind-compare' | 'rewind-place';
      rewind: RewindHandle;
      memory: MemoryHandle;
      lane: number;
      first: number;
      count: number;
    }
  | { step: 'rewind-keep'; rewind: RewindHandle; lane: number; first: number; count: number }
  | {
      step: 'copy';
      reader: ReaderHandle;
      writer: WriterHandle;
      asStored: boolean;
      lane: number;
      first: number;
      count: number;
    }
  | {
      step: 'copy-holes';
      reader: ReaderHandle;
      writer: WriterHandle;
      lane: number;
      first: number;
      count: number;
    }
  | { step: 'page-file'; file: PageFileHandle; lane: number; first: number; count: number }
  | { step: 'diff-look'; diff: DiffHandle; ofTo: boolean; lane: number; first: number; count: number }
  | {
      step: 'digest-domain';
      memory: MemoryHandle;
      digest: DigestHandle;
      lane: number;
      first: number;
      count: number;
    }
  | {
      step: 'digest-image';
      reader: ReaderHandle;
      digest: DigestHandle;
      lane: number;
      first: number;
      count: number;
    };

/** Errors travel as data: a thrown Error loses its code between threads. */
export type TaskReply =
  { ok: true; counts: number[] | null } | { ok: false; code: ErrorCode; message: string; place: ErrorPlace };

function runStep(task: Task): number[] | null {
  if (task.step === 'warm') {
    steps();
    return null;
  }
  const { lane, first, count } = task;
  switch (task.step) {
    case 'save':
      return steps().saveStep(task.memory, task.writer, lane, first, count);
    case 'live':
      return steps().liveStep(task.live, task.memory, task.writer, lane, task.kind, first, count);
    case 'live-put':
      return steps().livePut(task.live, task.writer, lane, first, count);
    case 'hash':
      steps().hashStep(task.reader, lane, first, count);
      return null;
    case 'restore':
      return [steps().restoreStep(task.memory, task.reader, lane, first, count)];
    case 'rewind-compare':
      return [steps().rewindCompare(task.rewind, task.memory, lane, first, count)];
    case 'rewind-keep':
      steps().rewindKeep(task.rewind, lane, first, count);
      return null;
    case 'rewind-place':
      return steps().rewindPlace(task.rewind, task.memory, lane, first, count);
    case 'copy':
      steps().copyStep(task.reader, task.writer, lane, first, count, task.asStored);
      return null;
    case 'copy-holes':
      steps().copyHoles(task.reader, task.writer, lane, first, count);
      return null;
    case 'page-file':
      steps().pageFilePut(task.file, lane, first, count);
      return null;
    case 'diff-look':
      steps().diffLook(task.diff, task.ofTo, lane, first, count);
      return null;
    case 'digest-domain':
      steps().digestDomainStep(task.memory, task.digest, first, count);
      return null;
    case 'digest-image':
      steps().digestImageStep(task.reader, task.digest, lane, first, count);
      return null;
  }
}

export default function run(task: Task): TaskReply {
  try {
    return { ok: true, counts: runStep(task) };
  } catch (thrown) {
    const { code, message, place } = asDormouseError(thrown);
    return { ok: false, code, message, place };
  }
}
