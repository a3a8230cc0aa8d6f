/** What Node has no call for: files that share blocks, and what the kernel caches of block devices. */
import { addon, native } from '../addon.js';

interface DiskAddon {
  clone(to: number, from: number, bytes: number): void;
  flushDevice(fd: number): void;
  deviceBytes(fd: number): number;
}

const calls = (): DiskAddon => addon('disk') as DiskAddon;

/**
 * The first `bytes` of one file become those of the other (0: all of them), which stays the file that it is: the two share blocks until
 * one is written to. What is not on disk of either is written first. HOST_LACKS where the file system cannot, NO_SPACE, IMAGE_WRITE_FAILED.
 */
export const cloneFile = (to: number, from: number, bytes = 0): void =>
  native(() => calls().clone(to, from, bytes));

/** What the kernel has cached of a block device is written, and read anew next time. */
export const flushDevice = (fd: number): void => native(() => calls().flushDevice(fd));

export const deviceBytes = (fd: number): number => native(() => calls().deviceBytes(fd));
