// One bounded piece of a restore: chunks of an image become pages of a domain being built.
#pragma once
#include "host/host.h"
#include "image/reader.h"
#include "pfn/canonicalise.h"

namespace dormouse::step {

// Checks, decodes and places units [first, first + count) of an image, see Reader::blanks(): page
// tables are localised with the new domain's p2m, pages superseded by a later chunk are left out.
// *placed grows by the pages written.
bool restore_step(host::DomainMemory& memory, image::Reader& reader, uint32_t lane, uint32_t first,
                  uint32_t count, uint64_t* placed, Fault* fault);

// Turns one canonical table into the new domain's: `out` is not `body`. IMAGE_DAMAGED naming pfn,
// level, entry and why.
bool localise_body(const host::FrameMaps& maps, uint64_t pfn, int level, const uint8_t* body,
                   uint8_t* out, Fault* fault, pfn::Localise localise = pfn::localise);

// Localises the tables that lie in canonical form in the memory of a domain being built.
bool localise_tables(host::DomainMemory& memory, const uint64_t* pfns, const uint8_t* levels,
                     uint64_t n, Fault* fault);

// Leaf k of the guest's own p2m, kPageSize bytes: entry i of the whole list is the machine frame of
// pfn i, or all ones where it has none.
void make_p2m_leaf(const host::FrameMaps& maps, uint64_t k, uint64_t* out);

// Writes the leaf level of the guest's own p2m.
bool write_p2m_leaves(host::DomainMemory& memory, const uint64_t* leaf_pfns, uint64_t n_leaves,
                      Fault* fault);

}  // namespace dormouse::step
