/**
 * Handles of native objects: numbers, valid in every thread of the process, each of one kind (native/binding/kinds.h). A
 * handle of the wrong kind does not compile here, and is refused there.
 */
declare const kindOfHandle: unique symbol;
type Handle<Kind extends string> = number & { readonly [kindOfHandle]: Kind };

export type MemoryHandle = Handle<'memory'>;
/** Of an image or a stream. */
export type WriterHandle = Handle<'writer'>;
export type ReaderHandle = Handle<'reader'>;
export type DigestHandle = Handle<'digest'>;
export type TrackerHandle = Handle<'tracker'>;
export type LiveHandle = Handle<'live pass'>;
/** What deltas of a session's images rest on. */
export type BasePagesHandle = Handle<'base pages'>;
/** A domain on its way back to an image. */
export type RewindHandle = Handle<'rewind'>;
/** What differs between two images. */
export type DiffHandle = Handle<'diff'>;
/** Pages of an image on their way to their places in an output. */
export type PageFileHandle = Handle<'page file'>;
export type OutputHandle = Handle<'output'>;
/** A machine of the embedded host, in its own process. */
export type MachineHandle = Handle<'machine'>;
/** The same, mapped by a tool. */
export type MappedMachineHandle = Handle<'mapped machine'>;
/** A memory of the xen host's addon, before the main one adopts it. */
export type XenMemoryHandle = Handle<'memory of the xen host'>;
export type XenBuilderHandle = Handle<'builder of the xen host'>;
export type XenRewriterHandle = Handle<'rewriter of the xen host'>;
