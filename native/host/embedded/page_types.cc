#include "host/embedded/page_types.h"

namespace dormouse::embedded {

namespace {
bool is_xen_slot(int level, int index) {
  return level == 4 && index >= kXenSlotFirst && index <= kXenSlotLast;
}
}  // namespace

uint8_t PageTypes::nibble(uint64_t mfn) const {
  const Frame& frame = machine_.frame(mfn);
  if (frame.type_count == 0 || frame.type > kTypeL4) return host::kNotab;
  return uint8_t(frame.type | (frame.pinned ? host::kPinned : 0));
}

bool PageTypes::is_table(uint64_t mfn, int level) const {
  if (!machine_.owned_by(mfn, dom_.domid)) return false;
  const Frame& frame = machine_.frame(mfn);
  return frame.type_count != 0 && frame.type == level;
}

bool PageTypes::refuse(uint64_t mfn, int index, const char* why) {
  if (bad_index_ >= 0) return false;
  bad_mfn_ = mfn;
  bad_index_ = index;
  bad_text_ = why;
  return false;
}

bool PageTypes::report(Fault* fault) const {
  const uint64_t pfn = bad_mfn_ < machine_.frames() ? machine_.m2p(bad_mfn_).load() : kNoPfn;
  if (pfn < dom_.nr_pfns) fault->pfn = pfn;
  return fault->raise("PAGE_TABLE_INVALID",
                      "page table refused: entry " + std::to_string(bad_index_) + " " + bad_text_);
}

bool PageTypes::get(uint64_t mfn, int type) {
  if (!machine_.owned_by(mfn, dom_.domid)) {
    why_ = "names a frame that is not the domain's";
    return false;
  }
  if (type != kTypeWritable && machine_.m2p(mfn) >= dom_.nr_pfns) {
    why_ = "names a frame outside the pfn space as a table";
    return false;
  }
  Frame& frame = machine_.frame(mfn);
  if (frame.type_count != 0 && frame.type != type) {
    why_ = type == kTypeWritable ? "maps a page table writable"
                                 : "names a frame that is in use as something else";
    return false;
  }
  if (frame.type_count++ != 0) return true;
  frame.type = uint8_t(type);
  if (type == kTypeWritable) return true;
  if (!validate(mfn, type)) {
    frame.type_count = 0;
    frame.type = kTypeNone;
    why_ = "names a table that is invalid";
    return false;
  }
  dom_.set_entry_type(mfn, nibble(mfn));
  return true;
}

void PageTypes::put(uint64_t mfn) {
  Frame& frame = machine_.frame(mfn);
  // Entries planted past validation were never counted.
  if (!machine_.owned_by(mfn, dom_.domid) || frame.type_count == 0) return;
  if (--frame.type_count != 0) return;
  const int type = frame.type;
  const bool lifted = frame.lifted;
  frame.type = kTypeNone;
  frame.lifted = false;
  if (type == kTypeWritable) return;
  if (!lifted) invalidate(mfn, type, 512);
  dom_.set_entry_type(mfn, host::kNotab);
}

bool PageTypes::get_entry(uint64_t pte, int level) {
  if (!(pte & kPtePresent)) return true;
  if (level > 1 && (pte & kPteSuper)) {
    why_ = "is a superpage";
    return false;
  }
  const uint64_t mfn = mfn_of_pte(pte);
  if (level > 1) {
    if (!get(mfn, level - 1)) return false;
  } else if (!machine_.owned_by(mfn, dom_.domid)) {
    why_ = "names a frame that is not the domain's";
    return false;
  } else if ((pte & kPteWritable) && !get(mfn, kTypeWritable)) {
    return false;
  }
  machine_.frame(mfn).refs++;
  return true;
}

void PageTypes::put_entry(uint64_t pte, int level) {
  if (!(pte & kPtePresent)) return;
  const uint64_t mfn = mfn_of_pte(pte);
  if (!machine_.owned_by(mfn, dom_.domid)) return;
  if (machine_.frame(mfn).refs) machine_.frame(mfn).refs--;
  if (level > 1 || (pte & kPteWritable)) put(mfn);
}

bool PageTypes::validate(uint64_t mfn, int level) {
  const uint64_t* table = machine_.words(mfn);
  for (int i = 0; i < 512; i++) {
    if (is_xen_slot(level, i) || get_entry(table[i], level)) continue;
    refuse(mfn, i, why_);
    invalidate(mfn, level, i);
    return false;
  }
  if (level == 4) fill_xen_slots(mfn);
  return true;
}

void PageTypes::invalidate(uint64_t mfn, int level, int entries) {
  const uint64_t* table = machine_.words(mfn);
  for (int i = 0; i < entries; i++)
    if (!is_xen_slot(level, i)) put_entry(table[i], level);
}

void PageTypes::fill_xen_slots(uint64_t mfn) {
  dom_.before_write(mfn);
  for (int i = kXenSlotFirst; i <= kXenSlotLast; i++) {
    const uint64_t own_mfn = uint64_t(i - kXenSlotFirst) % Machine::kOwnFrames;
    machine_.words(mfn)[i] = own_mfn << 12 | 0x63;
  }
}

bool PageTypes::pin(uint64_t mfn, int level, Fault* fault) {
  bad_index_ = -1;
  if (!machine_.owned_by(mfn, dom_.domid)) {
    refuse(mfn, 0, "is of a frame that is not the domain's");
    return report(fault);
  }
  Frame& frame = machine_.frame(mfn);
  if (frame.pinned && frame.type == level) return true;
  if (frame.pinned || !get(mfn, level)) {
    refuse(mfn, 0, "is of a table in use as something else");
    return report(fault);
  }
  frame.pinned = true;
  dom_.set_entry_type(mfn, nibble(mfn));
  return true;
}

bool PageTypes::unpin(uint64_t mfn) {
  if (!machine_.owned_by(mfn, dom_.domid) || !machine_.frame(mfn).pinned) return false;
  machine_.frame(mfn).pinned = false;
  dom_.set_entry_type(mfn, nibble(mfn));
  put(mfn);
  return true;
}

bool PageTypes::lift(uint64_t mfn) {
  Frame& frame = machine_.frame(mfn);
  const bool table = frame.type_count != 0 && frame.type >= kTypeL1 && frame.type <= kTypeL4;
  if (!machine_.owned_by(mfn, dom_.domid) || !table || frame.lifted) return false;
  frame.lifted = true;
  invalidate(mfn, frame.type, 512);
  return true;
}

bool PageTypes::land(uint64_t mfn, Fault* fault) {
  bad_index_ = -1;
  Frame& frame = machine_.frame(mfn);
  if (!frame.lifted) return true;
  frame.lifted = false;
  if (validate(mfn, frame.type)) return true;
  // Its entries were given back as far as they were taken.
  frame.lifted = true;
  return report(fault);
}

bool PageTypes::update(uint64_t table_mfn, uint64_t index, uint64_t pte, Fault* fault) {
  bad_index_ = -1;
  const int level = machine_.owned_by(table_mfn, dom_.domid) ? machine_.frame(table_mfn).type : 0;
  if (level < kTypeL1 || level > kTypeL4 || is_xen_slot(level, int(index))) {
    refuse(table_mfn, int(index), "is not the guest's to change");
    return report(fault);
  }
  if (!get_entry(pte, level)) {
    refuse(table_mfn, int(index), why_);
    return report(fault);
  }
  dom_.before_write(table_mfn);
  uint64_t* slot = machine_.words(table_mfn) + index;
  const uint64_t old = __atomic_exchange_n(slot, pte, __ATOMIC_ACQ_REL);
  put_entry(old, level);
  return true;
}

}  // namespace dormouse::embedded
