/** Reads a Xen core dump (Xen's docs/misc/dump-core-format.txt), independently of what wrote it. */
import assert from 'node:assert/strict';
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';

export interface CoreSection {
  readonly name: string;
  readonly type: number;
  readonly offset: number;
  readonly bytes: number;
}

export interface CoreNote {
  readonly name: string;
  readonly type: number;
  readonly body: Buffer;
}

export class CoreDump {
  readonly sections: readonly CoreSection[];
  readonly #fd: number;

  constructor(path: string) {
    this.#fd = openSync(path, 'r');
    const elf = this.#at(0, 64);
    assert.deepEqual(
      [...elf.subarray(0, 7)],
      [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1],
      'ELF of 64 bits, little-endian',
    );
    assert.deepEqual([elf.readUInt16LE(16), elf.readUInt16LE(18)], [4, 62], 'a core, of x86-64');
    const [at, size] = [Number(elf.readBigUInt64LE(40)), elf.readUInt16LE(58)];
    const headers = Array.from({ length: elf.readUInt16LE(60) }, (_, i) => this.#at(at + i * size, size));
    const far = (header: Buffer, field: number): number => Number(header.readBigUInt64LE(field));
    const strings = headers[elf.readUInt16LE(62)];
    assert.ok(strings);
    const names = this.#at(far(strings, 24), far(strings, 32));
    this.sections = headers.map((header) => {
      const from = header.readUInt32LE(0);
      const name = names.toString('latin1', from, names.indexOf(0, from));
      return { name, type: header.readUInt32LE(4), offset: far(header, 24), bytes: far(header, 32) };
    });
    const end = Math.max(...this.sections.map(({ offset, bytes }) => offset + bytes));
    assert.equal(fstatSync(this.#fd).size, end, 'nothing after the last section');
  }

  section(name: string): CoreSection {
    const found = this.sections.find((section) => section.name === name);
    assert.ok(found, `no section ${name}`);
    return found;
  }

  /** Bytes of a section, from `from` on. */
  read(name: string, from = 0, bytes?: number): Buffer {
    const { offset, bytes: all } = this.section(name);
    return this.#at(offset + from, bytes ?? all - from);
  }

  notes(): CoreNote[] {
    const bytes = this.read('.note.Xen');
    const notes: CoreNote[] = [];
    for (let at = 0; at < bytes.length;) {
      const [nameBytes, bodyBytes, type] = [0, 4, 8].map((field) => bytes.readUInt32LE(at + field));
      assert.ok(nameBytes === 4 && bodyBytes !== undefined && type !== undefined);
      const body = bytes.subarray(at + 16, at + 16 + bodyBytes);
      notes.push({ name: bytes.toString('latin1', at + 12, at + 15), type, body });
      at += 16 + bodyBytes;
    }
    return notes;
  }

  close(): void {
    closeSync(this.#fd);
  }

  #at(offset: number, bytes: number): Buffer {
    const out = Buffer.alloc(bytes);
    assert.equal(readSync(this.#fd, out, 0, bytes, offset), bytes, `${bytes} bytes at ${offset}`);
    return out;
  }
}
