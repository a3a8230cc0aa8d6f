#include "host/xen/domain_rewriter.h"

#include <xen/hvm/save.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "host/xen/event_words.h"

namespace dormouse::xen {
namespace {

constexpr uint32_t kQueryPages = 1024;
// A kernel that takes events by a vector of each vCPU's own says that it takes them by this line,
// which a PVH domain has not: Linux (arch/x86/xen/enlighten_hvm.c), whose vector is this.
constexpr uint64_t kOwnVectors = 1;
constexpr uint32_t kLinuxVector = 0xf3;
constexpr int kViaType = 56;
constexpr uint64_t kViaVector = 2;
// What others do with a page that was granted to them; Xen's to say.
constexpr uint16_t kInUse = GTF_reading | GTF_writing;

bool is_pinned_table(uint64_t entry, int level) {
  const auto type = host::type_of(entry);
  return (type & host::kPinned) && host::table_level(type) == level;
}

// The vCPUs of a context that are on.
std::vector<uint32_t> cpus_of(const Bytes& context) {
  std::vector<uint32_t> cpus;
  size_t at = 0;
  for (hvm_save_descriptor head; at + sizeof head <= context.size();) {
    std::memcpy(&head, context.data() + at, sizeof head);
    if (head.typecode == HVM_SAVE_CODE(END) || head.length > context.size() - at - sizeof head)
      break;
    if (head.typecode == HVM_SAVE_CODE(CPU)) cpus.push_back(head.instance);
    at += sizeof head + head.length;
  }
  return cpus;
}

// The message that wakes a vCPU does so only if it is not pending there already.
void forget_wakes(Bytes* context) {
  constexpr size_t kPending = 0x200 + kLinuxVector / 32 * 16 + kLinuxVector % 32 / 8;
  size_t at = 0;
  for (hvm_save_descriptor head; at + sizeof head <= context->size();) {
    std::memcpy(&head, context->data() + at, sizeof head);
    at += sizeof head;
    if (head.typecode == HVM_SAVE_CODE(END) || head.length > context->size() - at) break;
    if (head.typecode == HVM_SAVE_CODE(LAPIC_REGS) && head.length > kPending)
      (*context)[at + kPending] &= uint8_t(~(1u << kLinuxVector % 8));
    at += head.length;
  }
}

grant_entry_v1 wanted_grant(const LinksBlobs& links, size_t i, const grant_entry_v1& now) {
  grant_entry_v1 out = {};
  if ((i + 1) * sizeof out <= links.grants.size())
    std::memcpy(&out, links.grants.data() + i * sizeof out, sizeof out);
  out.flags = uint16_t((out.flags & ~kInUse) | (now.flags & kInUse));
  return out;
}

bool same_grant(const grant_entry_v1& a, const grant_entry_v1& b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

}  // namespace

std::shared_ptr<DomainRewriter> DomainRewriter::open(std::shared_ptr<Handles> xen, uint32_t domid,
                                                     std::shared_ptr<XenMemory> memory,
                                                     Fault* fault) {
  xc_domaininfo_t info;
  if (!domain_info(*xen, domid, &info, fault)) return nullptr;
  std::shared_ptr<DomainRewriter> out(new DomainRewriter(std::move(xen), domid, std::move(memory)));
  out->pv_ = !is_hvm(info);
  return out;
}

// Calls visit(pfn, entry) for every pfn that has a frame.
template <typename Visit>
bool DomainRewriter::each_entry(const Visit& visit, Fault* fault) {
  uint64_t entries[kQueryPages];
  for (uint64_t first = next_present(0); first < nr_pfns();
       first = next_present(first + kQueryPages)) {
    const uint32_t n = uint32_t(std::min<uint64_t>(kQueryPages, nr_pfns() - first));
    if (!query(first, n, entries, fault)) return false;
    for (uint32_t i = 0; i < n; ++i)
      if (host::mfn_of(entries[i]) != host::kNoMfn) visit(first + i, entries[i]);
  }
  return true;
}

bool DomainRewriter::list_frames(Fault* fault) {
  std::vector<uint64_t> frames(nr_pfns(), host::kNoMfn);
  const auto note = [&](uint64_t pfn, uint64_t entry) {
    if (host::has_body(host::type_of(entry))) frames[pfn] = pv_ ? host::mfn_of(entry) : pfn;
  };
  if (!each_entry(note, fault)) return false;
  pages_.unmap();
  frames_ = std::move(frames);
  return true;
}

bool DomainRewriter::check_grants(const LinksBlobs& links, Fault* fault) {
  GrantTable table;
  if (!table.map(xen_, domid_, false, fault)) return false;
  for (size_t i = GNTTAB_NR_RESERVED_ENTRIES; i < table.entries(); ++i) {
    const grant_entry_v1 now = table.data()[i];
    if (!(now.flags & kInUse) || same_grant(now, wanted_grant(links, i, now))) continue;
    return fault->raise("HOST_LACKS", "its grant " + std::to_string(i) + " is mapped by domain " +
                                          std::to_string(now.domid) +
                                          ", and not by a backend that can be taken off");
  }
  return true;
}

// Calls visit(events, local port) with our own end of each channel that a backend has the other end
// of when it is on.
template <typename Visit>
bool DomainRewriter::each_device_channel(const LinksBlobs& links, const RingEnds& rings,
                                         const Visit& visit, Fault* fault) {
  xenevtchn_handle* const events = xenevtchn_open(nullptr, 0);
  if (!events) return raise_errno(fault, "opening event channels", domid_);
  bool good = true;
  for (size_t port = 0; good && port < links.channels.size(); ++port) {
    if (!is_device_channel(links.channels, rings, port) ||
        links.channels[port] != EVTCHNSTAT_interdomain)
      continue;
    const auto local = xenevtchn_bind_interdomain(events, domid_, uint32_t(port));
    if (local < 0) {
      const std::string why = std::strerror(errno);
      good = fault->raise("HOST_LACKS", "its event channel " + std::to_string(port) +
                                            " is none that this host could raise: " + why);
      break;
    }
    good = visit(events, evtchn_port_t(local)) || raise_errno(fault, "raising an event", domid_);
    xenevtchn_unbind(events, evtchn_port_t(local));
  }
  xenevtchn_close(events);
  return good;
}

// A page of a local descriptor table cannot be mapped to be written to as long as a vCPU uses it.
bool DomainRewriter::check_descriptors(Fault* fault) {
  xc_domaininfo_t info;
  if (!domain_info(*xen_, domid_, &info, fault)) return false;
  for (uint32_t id = 0; pv_ && id <= info.max_vcpu_id; ++id) {
    vcpu_guest_context_any_t context;
    if (xc_vcpu_getcontext(xen_->xc(), domid_, id, &context) != 0) continue;  // one that is down
    if (context.x64.ldt_ents == 0) continue;
    return fault->raise("HOST_LACKS", "its vCPU " + std::to_string(id) +
                                          " uses a local descriptor table just now: try again");
  }
  return true;
}

bool DomainRewriter::check_ties(const LinksBlobs& links, const RingEnds& rings, Fault* fault) {
  const auto nothing = [](xenevtchn_handle*, evtchn_port_t) { return true; };
  return check_grants(links, fault) && check_descriptors(fault) &&
         each_device_channel(links, rings, nothing, fault);
}

// None is up, blocked or polling any more: those that are to be are set up again.
bool DomainRewriter::reset_vcpus(Fault* fault) {
  xc_domaininfo_t info;
  if (!domain_info(*xen_, domid_, &info, fault)) return false;
  for (uint32_t id = 0; id <= info.max_vcpu_id; ++id)
    if (xc_vcpu_setcontext(xen_->xc(), domid_, id, nullptr) != 0 && errno != ENOENT &&
        errno != ESRCH)
      return raise_errno(fault, "resetting a vCPU", domid_);
  return true;
}

bool DomainRewriter::unpin_tables(Fault* fault) {
  std::vector<uint64_t> tables[5];
  const auto note = [&](uint64_t, uint64_t entry) {
    for (int level = 1; level <= 4; ++level)
      if (is_pinned_table(entry, level)) tables[level].push_back(host::mfn_of(entry));
  };
  if (!each_entry(note, fault)) return false;
  for (int level = 4; level >= 1; --level)
    for (const uint64_t frame : tables[level]) {
      mmuext_op op = {};
      op.cmd = MMUEXT_UNPIN_TABLE;
      op.arg1.mfn = frame;
      if (xc_mmuext_op(xen_->xc(), &op, 1, domid_) != 0)
        return raise_errno(fault, "unpinning a page table", domid_);
    }
  uint64_t left = 0;
  const auto count = [&](uint64_t, uint64_t entry) {
    left += host::table_level(host::type_of(entry)) != 0;
  };
  if (!each_entry(count, fault)) return false;
  return left == 0 || fault->raise("INTERNAL", std::to_string(left) + " of its page tables are " +
                                                   "still in use without a vCPU");
}

bool DomainRewriter::begin(Fault* fault) {
  // A vCPU of a PVH domain does not survive this: Xen 4.17 has it run on garbage afterwards.
  return (!pv_ || (reset_vcpus(fault) && unpin_tables(fault))) && list_frames(fault);
}

bool DomainRewriter::copy_in(const uint64_t* pfns, uint32_t n, const uint8_t* src, Fault* fault) {
  return pages_.copy_in(pfns, n, src, fault);
}

bool DomainRewriter::put_registers(const std::vector<TableToPin>& pins, const StateBlobs& state,
                                   Wake wake, Fault* fault) {
  if (!pv_) {
    Bytes context = state.hvm_context;
    if (wake == Wake::message) forget_wakes(&context);
    return xc_domain_hvm_setcontext(xen_->xc(), domid_, context.data(), uint32_t(context.size())) ==
               0 ||
           raise_errno(fault, "sethvmcontext", domid_);
  }
  for (const TableToPin& table : pins) {
    const uint64_t frame = table.pfn < frames_.size() ? frames_[table.pfn] : host::kNoMfn;
    if (!pin_table(*xen_, domid_, table, frame, fault)) return false;
  }
  if (!set_shared_info(xen_, domid_, state.shared_info, {false}, fault)) return false;
  for (const VcpuBlobs& vcpu : state.vcpus)
    if (!set_pv_vcpu(*xen_, domid_, vcpu, fault)) return false;
  return true;
}

bool DomainRewriter::put_grants(const LinksBlobs& links, Fault* fault) {
  GrantTable table;
  if (!table.map(xen_, domid_, true, fault)) return false;
  for (size_t i = GNTTAB_NR_RESERVED_ENTRIES; i < table.entries(); ++i) {
    const grant_entry_v1 wanted = wanted_grant(links, i, table.data()[i]);
    if (!same_grant(table.data()[i], wanted)) table.data()[i] = wanted;
  }
  return true;
}

// As they were before backends went on in them.
bool DomainRewriter::put_rings(const LinksBlobs& links, Fault* fault) {
  alignas(64) uint8_t page[host::kPageSize];
  for (size_t at = 0; at + kRingPageBytes <= links.rings.size(); at += kRingPageBytes) {
    uint64_t pfn;
    std::memcpy(&pfn, links.rings.data() + at, sizeof pfn);
    std::memcpy(page, links.rings.data() + at + sizeof pfn, sizeof page);
    if (!pages_.copy_in(&pfn, 1, page, fault)) return false;
  }
  return true;
}

// Xen keeps the end of each queue of events for itself: what was in it then is in none now.
bool DomainRewriter::clear_events(const LinksBlobs& links, const RingEnds& rings, Fault* fault) {
  alignas(8) uint32_t words[kEventWords];
  auto* const page = reinterpret_cast<uint8_t*>(words);
  if (!pages_.copy_out(&links.event_array, 1, page, fault)) return false;
  for (size_t port = 0; port < std::min(links.channels.size(), kEventWords); ++port)
    // Those of the rings were raised while pages were written.
    if (is_device_channel(links.channels, rings, port) || port == rings.store_port ||
        port == rings.console_port)
      words[port] &= ~(kEventPending | kEventLinked | kEventBusy | kEventLink);
  return pages_.copy_in(&links.event_array, 1, page, fault);
}

// A ring waits for ever for an event that was lost; one too many does no harm.
bool DomainRewriter::raise_events(const LinksBlobs& links, const RingEnds& rings, Fault* fault) {
  const auto raise = [](xenevtchn_handle* events, evtchn_port_t local) {
    return xenevtchn_notify(events, local) == 0;
  };
  return each_device_channel(links, rings, raise, fault);
}

// One that has crashed, or shut down otherwise, since.
bool DomainRewriter::forget_shutdown(Fault* fault) {
  xc_domaininfo_t info;
  if (!domain_info(*xen_, domid_, &info, fault)) return false;
  if (!(info.flags & XEN_DOMINF_shutdown)) return true;
  xen_domctl op = {};
  return domctl(*xen_, domid_, XEN_DOMCTL_resumedomain, &op) == 0 ||
         raise_errno(fault, "resumedomain", domid_);
}

bool DomainRewriter::find_wake(Wake* wake, Fault* fault) {
  *wake = Wake::itself;
  if (pv_) return true;
  uint64_t via = 0;
  if (xc_hvm_param_get(xen_->xc(), domid_, HVM_PARAM_CALLBACK_IRQ, &via) != 0)
    return raise_errno(fault, "hvm_get_param", domid_);
  *wake = Wake::unknown;
  if (via >> kViaType == kViaVector) *wake = Wake::callback;
  if (via == kOwnVectors) *wake = Wake::message;
  return true;
}

// A vCPU of a PVH domain that waits for an event now and did not then has nothing to wait for: it
// gets one. Xen sends each one when it is told anew where the domain takes them.
bool DomainRewriter::wake_vcpus(const StateBlobs& state, Wake wake, Fault* fault) {
  constexpr uint64_t kMessageAddress = 0xfee00000;
  uint64_t via = 0;
  if (wake == Wake::callback)
    return (xc_hvm_param_get(xen_->xc(), domid_, HVM_PARAM_CALLBACK_IRQ, &via) == 0 &&
            xc_hvm_param_set(xen_->xc(), domid_, HVM_PARAM_CALLBACK_IRQ, via) == 0) ||
           raise_errno(fault, "waking its vCPUs", domid_);
  if (wake != Wake::message) return true;
  xendevicemodel_handle* const model = xendevicemodel_open(nullptr, 0);
  if (!model) return raise_errno(fault, "opening privcmd", domid_);
  bool good = true;
  for (const uint32_t cpu : cpus_of(state.hvm_context)) {
    const uint64_t to = kMessageAddress | uint64_t(cpu * 2) << 12;  // Xen's ids of local APICs
    good = good && (xendevicemodel_inject_msi(model, domid_t(domid_), to, kLinuxVector) == 0 ||
                    raise_errno(fault, "waking its vCPUs", domid_));
  }
  xendevicemodel_close(model);
  return good;
}

bool DomainRewriter::look(Fault* fault) {
  xc_domaininfo_t info;
  return domain_info(*xen_, domid_, &info, fault) &&
         timers_.find(*memory_, pv_ ? host::kNoMfn : info.shared_info_frame, fault);
}

bool DomainRewriter::raise_timers(const StateBlobs& state, const LinksBlobs& links,
                                  std::string* why, Fault* fault) {
  xc_domaininfo_t info;
  if (!domain_info(*xen_, domid_, &info, fault)) return false;
  std::vector<uint32_t> ports;
  for (uint32_t port = 0; port < std::min(links.channels.size(), kEventWords); ++port)
    if (links.channels[port] == kTimerChannel) ports.push_back(port);
  const GuestPages pages = {
      [&](uint64_t pfn, uint8_t* to, Fault* bad) { return pages_.copy_out(&pfn, 1, to, bad); },
      [&](uint64_t pfn, const uint8_t* from, Fault* bad) {
        return pages_.copy_in(&pfn, 1, from, bad);
      }};
  const size_t on = pv_ ? state.vcpus.size() : cpus_of(state.hvm_context).size();
  return timers_.raise(pages, links.event_array, ports, uint32_t(on), info.max_vcpu_id + 1, why,
                       fault);
}

bool DomainRewriter::land(const std::vector<TableToPin>& pins, const StateBlobs& state,
                          const LinksBlobs& links, const RingEnds& rings, std::string* timers,
                          Fault* fault) {
  Wake wake;
  timers->clear();
  const bool cleared = find_wake(&wake, fault) && put_rings(links, fault) &&
                       clear_events(links, rings, fault) &&
                       // One that is pending already and is not told of is never told of again.
                       (wake == Wake::unknown || raise_timers(state, links, timers, fault));
  if (wake == Wake::unknown) *timers = "it does not say where it takes events";
  // A page that is mapped here to be written to can be no page table.
  pages_.unmap();
  return cleared && put_registers(pins, state, wake, fault) && put_grants(links, fault) &&
         make_room_for_responses(xen_, domid_, rings.store_frame, fault) &&
         forget_shutdown(fault) && wake_vcpus(state, wake, fault) &&
         raise_events(links, rings, fault);
}

}  // namespace dormouse::xen
