/** In what the states of two domains, or of one at two instants, differ beside memory. */
import type { DomainState } from '../domain/state.js';
import { type StatePart, statePartsOf } from '../domain/registers.js';
import type { DomainType } from '../domain/type.js';

export interface RegisterDiff {
  readonly name: string;
  /** Hex, with 0x. */
  readonly from: string;
  readonly to: string;
}

export interface VcpuDiff {
  readonly vcpu: number;
  /** Who has it online. */
  readonly online: 'both' | 'from' | 'to';
  readonly registers: readonly RegisterDiff[];
  /** What else of it differs and has no finer names. */
  readonly other: readonly string[];
}

export interface StateDiff {
  /** Those that differ. */
  readonly vcpus: readonly VcpuDiff[];
  /** Parts of the domain's state that differ and are of no vCPU. */
  readonly state: readonly string[];
}

interface Subject {
  readonly type: DomainType;
  readonly state: DomainState;
}

type Parts = readonly StatePart[];

/** Little-endian. */
const hex = ({ bytes }: StatePart): string =>
  `0x${bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n).toString(16)}`;

interface Pair {
  readonly name: string;
  readonly from: StatePart | undefined;
  readonly to: StatePart | undefined;
}

/** Parts that differ, in the order of the first; one that is missing is as one that is empty. */
function differing(from: Parts, to: Parts): Pair[] {
  const [was, is] = [from, to].map((parts) => new Map(parts.map((part) => [part.name, part])));
  const names = [...new Set([...from, ...to].map(({ name }) => name))];
  return names
    .map((name) => ({ name, from: was?.get(name), to: is?.get(name) }))
    .filter((pair) => !(pair.from?.bytes ?? nothing).equals(pair.to?.bytes ?? nothing));
}

const nothing = Buffer.alloc(0);

function vcpuDiff(vcpu: number, from: Parts | undefined, to: Parts | undefined): VcpuDiff {
  const online = from && to ? 'both' : from ? 'from' : 'to';
  const registers: RegisterDiff[] = [];
  const other: string[] = [];
  // Of a vCPU that one of them does not have there is nothing to compare.
  for (const pair of from && to ? differing(from, to) : []) {
    const { name } = pair;
    if (pair.from?.isRegister && pair.to?.isRegister)
      registers.push({ name, from: hex(pair.from), to: hex(pair.to) });
    else other.push(name);
  }
  return { vcpu, online, registers, other };
}

export function diffStates(from: Subject, to: Subject): StateDiff {
  const [was, is] = [statePartsOf(from.type, from.state), statePartsOf(to.type, to.state)];
  const partsOf = (vcpus: typeof was.vcpus, id: number): Parts | undefined =>
    vcpus.find(({ vcpu }) => vcpu === id)?.parts;
  const ids = [...new Set([...was.vcpus, ...is.vcpus].map(({ vcpu }) => vcpu))].sort((a, b) => a - b);
  return {
    vcpus: ids
      .map((id) => vcpuDiff(id, partsOf(was.vcpus, id), partsOf(is.vcpus, id)))
      .filter(({ online, registers, other }) => online !== 'both' || registers.length + other.length > 0),
    state: differing(was.domain, is.domain).map(({ name }) => name),
  };
}
