/** Loads the addon once per process. Each folder of src/ declares the part it uses. */
import { createRequire } from 'node:module';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { asDormouseError, DormouseError } from './errors.js';

/** The folder that holds package.json, found from the compiled file (dist/src/addon.js). */
export const packageRoot = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

let loaded: Record<string, unknown> | undefined;

/**
 * One namespace of the addon (`pfn`, `codec`, `image`, `hypervisor`, `embedded`, `step`, `output`), typed by the caller.
 * Throws HOST_UNAVAILABLE where the addon is not built.
 */
export function addon(namespace: string): unknown {
  if (!loaded) {
    const path = join(packageRoot, 'build/Release/dormouse.node');
    if (!existsSync(path))
      throw new DormouseError('HOST_UNAVAILABLE', `the addon is not built (${path}); run npm run build`);
    loaded = createRequire(import.meta.url)(path) as Record<string, unknown>;
  }
  return loaded[namespace];
}

/** Runs a native call and turns what it throws into a DormouseError. */
export function native<T>(call: () => T): T {
  try {
    return call();
  } catch (thrown) {
    throw asDormouseError(thrown);
  }
}

/** The same of a call that is made at once, with its error as the promise's. */
export function nativeCall<T>(body: () => T): Promise<T> {
  return new Promise((resolve) => {
    resolve(native(body));
  });
}

/** The same of a call that answers with a promise. */
export async function nativePromise<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (thrown) {
    throw asDormouseError(thrown);
  }
}
