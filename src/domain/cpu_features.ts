/** Names of processor features by the bit that CPUID shows them in, as cpuid in xl.cfg(5) and /proc/cpuinfo have them. */

export interface FeatureWord {
  readonly leaf: number;
  readonly subleaf: number;
  readonly register: 'a' | 'b' | 'c' | 'd';
  /** Bit 0 first; `-` has no name. */
  readonly names: readonly string[];
  /** Bits that do not stand for something the guest could use. */
  readonly ignored?: readonly number[];
}

const word = (
  leaf: number,
  subleaf: number,
  register: FeatureWord['register'],
  names: string,
  ignored: readonly number[] = [],
): FeatureWord => ({ leaf, subleaf, register, names: names.trim().split(/\s+/), ignored });

/** A leaf without subleaves. */
export const noSubleaf = 0xffff_ffff;

/** Which state XSAVE may save: bits of XCR0. */
export const xsaveStates: readonly string[] =
  'x87 sse avx bndregs bndcsr opmask zmm-hi256 zmm-hi16 pt pkru pasid cet-u cet-s hdc uintr lbr hwp amx-tile-config amx-tile-data'.split(
    ' ',
  );

export const featureWords: readonly FeatureWord[] = [
  word(
    1,
    noSubleaf,
    'd',
    `fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 psn clflush - ds acpi mmx fxsr sse sse2 ss
     htt tm1 ia64 pbe`,
    // apic follows what the guest did with its local APIC.
    [9],
  ),
  word(
    1,
    noSubleaf,
    'c',
    `sse3 pclmulqdq dtes64 monitor dscpl vmx smx est tm2 ssse3 cntxid sdbg fma cx16 xtpr pdcm - pcid dca sse4.1 sse4.2
     x2apic movbe popcnt tsc-deadline aes xsave osxsave avx f16c rdrand hypervisor`,
    // osxsave follows the guest's CR4; hypervisor says that there is one.
    [27, 31],
  ),
  word(
    7,
    0,
    'b',
    `fsgsbase tsc-adjust sgx bmi1 hle avx2 fdp-exn-only smep bmi2 erms invpcid rtm pqm depfpp mpx pqe avx512f avx512dq
     rdseed adx smap avx512-ifma - clflushopt clwb proc-trace avx512pf avx512er avx512cd sha avx512bw avx512vl`,
    // fdp-exn-only and depfpp say what the FPU lacks.
    [6, 13],
  ),
  word(
    7,
    0,
    'c',
    `prefetchwt1 avx512-vbmi umip pku ospke waitpkg avx512-vbmi2 cet-ss gfni vaes vpclmulqdq avx512-vnni avx512-bitalg tme
     avx512-vpopcntdq - la57 - - - - - rdpid kl bus-lock-detect cldemote - movdiri movdir64b enqcmd sgx-lc pks`,
    // ospke follows the guest's CR4.
    [4],
  ),
  word(
    7,
    0,
    'd',
    `- - avx512-4vnniw avx512-4fmaps fsrm uintr - - avx512-vp2intersect srbds-ctrl md-clear rtm-always-abort -
     tsx-force-abort serialize hybrid tsxldtrk - pconfig arch-lbr cet-ibt - amx-bf16 avx512-fp16 amx-tile amx-int8 ibrsb
     stibp l1d-flush arch-caps core-caps ssbd`,
    [11],
  ),
  word(7, 1, 'a', 'sha512 sm3 sm4 rao-int avx-vnni avx512-bf16 - cmpccxadd - - fzrm fsrs fsrcs'),
  word(0xd, 1, 'a', 'xsaveopt xsavec xgetbv1 xsaves xfd'),
  word(
    0x8000_0001,
    noSubleaf,
    'd',
    `fpu vme de pse tsc msr pae mce cx8 apic - syscall mtrr pge mca cmov pat pse36 - mp nx - mmxext mmx fxsr ffxsr
     page1gb rdtscp - lm 3dnowext 3dnow`,
    // What AMD shows here of leaf 1 once more, and what a guest of its is shown so, is judged there.
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17, 23, 24],
  ),
  word(
    0x8000_0001,
    noSubleaf,
    'c',
    `lahf-lm cmp-legacy svm extapic altmovcr8 abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp fma4 tce -
     nodeid - tbm topoext perfctr-core perfctr-nb - dbx perftsc perfctr-l2 monitorx`,
  ),
  word(0x8000_0007, noSubleaf, 'd', '- - - - - - - hwpstate itsc cpb efro'),
  word(
    0x8000_0008,
    noSubleaf,
    'b',
    `clzero irperf rstr-fp-err-ptrs - rdpru - - - - wbnoinvd - - ibpb - ibrs amd-stibp ibrs-always stibp-always ibrs-fast
     ibrs-same-mode no-lmsl - - ppin amd-ssbd virt-ssbd ssb-no cppc psfd btc-no ibpb-ret`,
  ),
  word(
    0x8000_0021,
    noSubleaf,
    'a',
    'no-nest-bp fs-gs-ns lfence+ - - verw-clear nscb - auto-ibrs - - - - - - - - - - - - - - - - - - sbpb ibpb-brtype srso-no',
  ),
];

/** Features that a guest finds in MSRs. */
export const msrFeatures: readonly { readonly index: number; readonly names: ReadonlyMap<number, string> }[] =
  [{ index: 0xce, names: new Map([[31, 'cpuid-faulting']]) }];
