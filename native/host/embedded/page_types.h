// Page types as Xen keeps them: a frame is used as a page table of one level, or writable, but not
// as both; a table counts as one only after every entry in it was checked, and so were the tables
// below it. All functions want the domain's `mmu` lock held.
#pragma once
#include <cstdint>
#include <string>

#include "host/embedded/domain.h"

namespace dormouse::embedded {

class PageTypes {
 public:
  explicit PageTypes(Domain& domain) : dom_(domain), machine_(domain.machine) {}

  // Validates (recursively) and pins. PAGE_TABLE_INVALID names the innermost table that is wrong.
  bool pin(uint64_t mfn, int level, Fault* fault);
  // False if it is not pinned.
  bool unpin(uint64_t mfn);
  // The entries of a table count for nothing until it is taken again, so that it may be written
  // past validation; false for what is no table.
  bool lift(uint64_t mfn);
  // Takes the entries of a table that was lifted and is still used as one.
  bool land(uint64_t mfn, Fault* fault);
  // Replaces one entry of a validated table, checking the new one.
  bool update(uint64_t table_mfn, uint64_t index, uint64_t pte, Fault* fault);

  bool is_table(uint64_t mfn, int level) const;
  // The PFINFO nibble of a frame as it is used now.
  uint8_t nibble(uint64_t mfn) const;

 private:
  bool get(uint64_t mfn, int type);
  void put(uint64_t mfn);
  bool validate(uint64_t mfn, int level);
  void invalidate(uint64_t mfn, int level, int entries);
  bool get_entry(uint64_t pte, int level);
  void put_entry(uint64_t pte, int level);
  void fill_xen_slots(uint64_t mfn);
  bool refuse(uint64_t mfn, int index, const char* why);
  bool report(Fault* fault) const;

  Domain& dom_;
  Machine& machine_;
  const char* why_ = nullptr;  // of the entry or frame last refused
  uint64_t bad_mfn_ = 0;       // innermost table refused
  int bad_index_ = -1;
  std::string bad_text_;
};

}  // namespace dormouse::embedded
