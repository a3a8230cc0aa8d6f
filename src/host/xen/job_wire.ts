/**
 * How `restore` and the save helper that libxl starts for it find each other. libxl gives the helper a stream; in the place
 * of a guest's pages ours holds a magic and a nonce. The helper asks the socket named in its environment for the job of
 * that nonce: a stream alone can make it open nothing.
 *
 * Over the socket go lines of JSON: the job one way, then progress and the outcome the other. The end that closes first
 * without an outcome has died or has cancelled.
 */
import { Buffer } from 'node:buffer';
import * as z from 'zod';
import type { Progress } from '../../domain/progress.js';
import { DormouseError, isErrorCode, type ErrorCode, type ErrorPlace } from '../../errors.js';

/** Names the socket to the helper. */
export const jobSocketVariable = 'DORMOUSE_RESTORE_SOCKET';

/** No libxc stream begins so: one begins with 8 bytes of ones. */
export const jobMagic = Buffer.from('DormJob1', 'latin1');
export const nonceBytes = 32;
export const jobBytes = jobMagic.length + nonceBytes;

const jobSchema = z.object({
  nonce: z.string().length(2 * nonceBytes),
  path: z.string().min(1),
  imageId: z.string(),
  root: z.string(),
  mostPfns: z.int().min(1),
});
export type Job = z.infer<typeof jobSchema>;

export type JobReport =
  | { readonly kind: 'started'; readonly domid: number }
  | { readonly kind: 'progress'; readonly progress: Progress }
  | { readonly kind: 'built' }
  | {
      readonly kind: 'failed';
      readonly code: ErrorCode;
      readonly message: string;
      readonly place: ErrorPlace;
    };

const reportSchema = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('started'), domid: z.int().min(1).max(0x7fef) }),
  z.object({
    kind: z.literal('progress'),
    progress: z.custom<Progress>((value) => typeof value === 'object'),
  }),
  z.object({ kind: z.literal('built') }),
  z.object({
    kind: z.literal('failed'),
    code: z.custom<ErrorCode>(isErrorCode),
    message: z.string(),
    place: z.custom<ErrorPlace>((value) => typeof value === 'object'),
  }),
]);

export const encodeLine = (value: Job | JobReport): string => JSON.stringify(value) + '\n';

function decode<T>(schema: z.ZodType<T>, line: string): T {
  try {
    return schema.parse(JSON.parse(line));
  } catch (thrown) {
    throw new DormouseError('HOST_PROTOCOL', 'restore and its save helper do not understand each other', {
      cause: thrown,
    });
  }
}

export const decodeJob = (line: string): Job => decode(jobSchema, line);
export const decodeReport = (line: string): JobReport => decode(reportSchema, line);
