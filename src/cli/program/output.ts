/** stdout and stderr, of which a disk that is full or a reader that went away makes no crash. */
import { fstatSync, writeSync } from 'node:fs';
import { isatty } from 'node:tty';
import { Writable } from 'node:stream';

/** Node.js writes to files and devices with one call, keeps quiet about what that left over, and throws from write(). */
class WholeOutput extends Writable {
  /** What was the first not to be written. A stream that fails takes nothing more; this one goes on. */
  failure: Error | null = null;

  constructor(private readonly fd: number) {
    super();
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    try {
      for (let at = 0; at < chunk.length;) at += writeSync(this.fd, chunk, at);
    } catch (thrown) {
      this.failure ??= thrown as Error;
    }
    done();
  }
}

function isFileOrDevice(fd: number): boolean {
  const stat = fstatSync(fd);
  return !isatty(fd) && (stat.isFile() || stat.isCharacterDevice());
}

/** One of the two. What cannot be written is told by `written`, and by nothing else. */
function output(standard: NodeJS.WriteStream & { fd: 1 | 2 }): NodeJS.WritableStream {
  const stream = isFileOrDevice(standard.fd) ? new WholeOutput(standard.fd) : standard;
  stream.on('error', () => undefined);
  return stream;
}

export const outputs = (): { stdout: NodeJS.WritableStream; stderr: NodeJS.WritableStream } => ({
  stdout: output(process.stdout),
  stderr: output(process.stderr),
});

/** Null once all of it is taken, or whoever read us has gone away (`| head`), which is no error; else why not. */
export async function written(stream: NodeJS.WritableStream, text: string): Promise<Error | null> {
  const failure = await new Promise<Error | null>((done) => {
    stream.write(text, (error?: Error | null) => done(error ?? null));
  });
  if (stream instanceof WholeOutput) return stream.failure;
  // Of a pipe that broke before, the stream tells only that it is destroyed.
  const gone = ['EPIPE', 'ERR_STREAM_DESTROYED'];
  return failure && gone.includes((failure as NodeJS.ErrnoException).code ?? '') ? null : failure;
}
