/**
 * What deltas of a session's next image can rest on: pages that its last images stored whole, in bounded memory. An image counts
 * once it is committed; one that failed has a number that no later one names.
 */
import { basename } from 'node:path';
import { native } from '../addon.js';
import type { BasePagesHandle } from '../handle.js';
import { pageBytes } from '../pfn/page_words.js';
import type { Ancestor } from './ancestors.js';
import { realPath } from './file.js';
import { MAX_DELTA_AGE } from './format.js';
import { nativeImage, type DeltaSetup } from './native.js';

const defaultBytes = 64 << 20;

/** A committed image, by the number it was written under. */
interface Base {
  readonly image: number;
  readonly file: Ancestor;
}

/** The place of one image in it. */
export interface DeltaUse {
  readonly setup: DeltaSetup;
  /** The files that deltas of these ages rest on, as DeltaSetup has ages. */
  files(ages: number): Ancestor[];
  /** The image exists. */
  committed(file: Omit<Ancestor, 'name'> & { readonly path: string }, fullMap: boolean): void;
}

export class DeltaBases {
  readonly #handle: BasePagesHandle;
  #next = 1;
  /** From the last full map on, each the parent of the next: whoever has the last one's files has all of these. */
  #line: Base[] = [];

  /** NO_MEMORY. */
  constructor(mostBytes = defaultBytes) {
    this.#handle = native(() => nativeImage().createBasePages(Math.ceil(mostBytes / pageBytes)));
  }

  /** For an image on this one, or on none. */
  begin(parent: { readonly root: string; readonly sequence: number } | null): DeltaUse {
    const last = this.#line.at(-1)?.file;
    if (last?.root !== parent?.root) this.#line = [];
    const sequence = parent ? parent.sequence + 1 : 0;
    const ageOf = ({ file }: Base) => sequence - file.sequence;
    const bases = this.#line.filter((base) => ageOf(base) <= MAX_DELTA_AGE);
    const image = this.#next++;
    const images = bases.map((base) => ({ image: base.image, age: ageOf(base) }));
    return {
      setup: { pages: this.#handle, image, images },
      files: (ages) => bases.filter((base) => (ages >>> (ageOf(base) - 1)) & 1).map(({ file }) => file),
      committed: ({ imageId, root, sequence, path }, fullMap) => {
        const base = { image, file: { imageId, root, sequence, name: basename(realPath(path)) } };
        this.#line = fullMap ? [base] : [...this.#line, base];
      },
    };
  }

  close(): void {
    nativeImage().closeBasePages(this.#handle);
  }
}
