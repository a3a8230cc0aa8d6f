// Xen's public x86-64 layouts, as far as guests and tools touch them
// (xen/include/public/{xen,arch-x86/xen,arch-x86/xen-x86_64}.h).
#pragma once
#include <cstddef>
#include <cstdint>

namespace dormouse::embedded {

constexpr uint64_t kPtePresent = 1, kPteWritable = 2, kPteSuper = 0x80;
constexpr uint64_t kPteFrame = ((1ull << 52) - 1) & ~0xfffull;
constexpr uint64_t kPteNoExecute = 1ull << 63;
constexpr uint64_t mfn_of_pte(uint64_t pte) { return (pte & kPteFrame) >> 12; }
// Slots of an L4 that belong to Xen.
constexpr int kXenSlotFirst = 256, kXenSlotLast = 271;

enum ShutdownReason : int {
  kPoweroff = 0,
  kReboot = 1,
  kSuspend = 2,
  kCrash = 3,
};

struct UserRegs {
  uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8;
  uint64_t rax, rcx, rdx, rsi, rdi;
  uint32_t error_code, entry_vector;
  uint64_t rip;
  uint16_t cs, pad0;
  uint8_t saved_upcall_mask, pad1[3];
  uint64_t rflags, rsp;
  uint64_t ss, es, ds, fs, gs;
};

struct VcpuContext {
  uint8_t fpu[512];
  uint64_t flags;
  UserRegs regs;
  uint8_t traps[256][16];
  uint64_t ldt_base, ldt_ents;
  uint64_t gdt_frames[16], gdt_ents;
  uint64_t kernel_ss, kernel_sp;
  uint64_t ctrlreg[8];
  uint64_t debugreg[8];
  uint64_t event_callback_eip, failsafe_callback_eip, syscall_callback_eip;
  uint64_t vm_assist;
  uint64_t fs_base, gs_base_kernel, gs_base_user;
};
static_assert(offsetof(VcpuContext, flags) == 512);
static_assert(offsetof(VcpuContext, regs.rax) == 600);
static_assert(offsetof(VcpuContext, regs.rdx) == 616);
static_assert(offsetof(VcpuContext, regs.rip) == 648);
static_assert(offsetof(VcpuContext, ldt_base) == 4816);
static_assert(offsetof(VcpuContext, gdt_frames) == 4832);
static_assert(offsetof(VcpuContext, ctrlreg) == 4984);
static_assert(offsetof(VcpuContext, vm_assist) == 5136);
static_assert(sizeof(VcpuContext) == 5168);
constexpr uint64_t kVgcfInKernel = 1 << 2, kVgcfOnline = 1 << 5;

struct VcpuInfo {
  uint8_t upcall_pending, upcall_mask, pad[6];
  uint64_t pending_sel;
  uint64_t cr2, arch_pad;
  uint8_t time[32];
};

struct SharedInfo {
  VcpuInfo vcpu_info[32];
  uint64_t evtchn_pending[64];
  uint64_t evtchn_mask[64];
  uint32_t wc_version, wc_sec, wc_nsec, wc_sec_hi;
  uint64_t max_pfn;
  uint64_t frame_list_list;
  uint64_t nmi_reason;
  uint64_t p2m_cr3;
  uint64_t p2m_vaddr;
  uint64_t p2m_generation;
};
static_assert(offsetof(SharedInfo, evtchn_pending) == 2048);
static_assert(offsetof(SharedInfo, evtchn_mask) == 2560);
static_assert(offsetof(SharedInfo, wc_version) == 3072);
static_assert(offsetof(SharedInfo, max_pfn) == 3088);
static_assert(offsetof(SharedInfo, p2m_cr3) == 3112);
static_assert(sizeof(SharedInfo) == 3136);

struct StartInfo {
  char magic[32];
  uint64_t nr_pages;
  uint64_t shared_info;  // machine address
  uint32_t flags, pad0;
  uint64_t store_mfn;
  uint32_t store_evtchn, pad1;
  uint64_t console_mfn;
  uint32_t console_evtchn, pad2;
  uint64_t pt_base, nr_pt_frames;
  uint64_t mfn_list;
  uint64_t mod_start, mod_len;
  char cmd_line[1024];
  uint64_t first_p2m_pfn, nr_p2m_frames;
};
static_assert(offsetof(StartInfo, shared_info) == 40);
static_assert(offsetof(StartInfo, store_mfn) == 56);
static_assert(offsetof(StartInfo, console_mfn) == 72);
static_assert(offsetof(StartInfo, pt_base) == 88);
static_assert(offsetof(StartInfo, mfn_list) == 104);
static_assert(offsetof(StartInfo, first_p2m_pfn) == 1152);
static_assert(sizeof(StartInfo) == 1168);
constexpr uint32_t kSifVirtP2m4Tools = 1 << 3;
constexpr char kStartInfoMagic[] = "xen-3.0-x86_64";

}  // namespace dormouse::embedded
